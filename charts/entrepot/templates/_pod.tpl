{{/* The pod that serves, the same in every mode. */}}
{{- define "entrepot.pod" -}}
{{- $daemonset := eq .Values.mode "daemonset" -}}
{{- $cache := include "entrepot.cache" . -}}
{{- $ports := fromJsonArray (include "entrepot.ports" .) -}}
{{- $credentials := include "entrepot.credentialsSecret" . -}}
{{- $nodeSetup := and $daemonset (include "entrepot.nodeSetup" .) -}}
{{- $config := fromJson (include "entrepot.config" .) -}}
{{- $notReloaded := dict "listen" .Values.config.listen "cache" $config.cache "clients" (dig "clients" "connections" "" $config) "ca" .Values.ca.bundle -}}
metadata:
  labels:
    {{- include "entrepot.labels" . | nindent 4 }}
    app.kubernetes.io/component: mirror
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: entrepot
    {{- /* Everything else is taken over while the mirror runs. */}}
    checksum/not-reloaded: {{ toJson $notReloaded | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "entrepot.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with default (ternary "system-node-critical" "" $daemonset) .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- $user := ternary 0 65532 (eq $cache "hostPath") }}
  {{- $security := dict "runAsUser" $user "runAsGroup" $user "fsGroup" $user "runAsNonRoot" (ne $user 0) "fsGroupChangePolicy" "OnRootMismatch" "seccompProfile" (dict "type" "RuntimeDefault") }}
  {{- if .Values.podSecurityContext.runAsUser }}
  {{- $_ := set $security "runAsNonRoot" true }}
  {{- end }}
  securityContext: {{- toYaml (mergeOverwrite $security (deepCopy .Values.podSecurityContext)) | nindent 4 }}
  {{- if $nodeSetup }}
  initContainers:
    {{- include "entrepot.nodeInstall" . | nindent 4 }}
    {{- /* With this policy it is no step, but runs beside the mirror, and neither holds up its start nor its end. */}}
    {{- include "entrepot.nodeVerify" . | nindent 4 }}
      restartPolicy: Always
  {{- end }}
  containers:
    - name: entrepot
      image: {{ include "entrepot.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      {{- with .Values.extraArgs }}
      args: {{- toYaml . | nindent 8 }}
      {{- end }}
      env:
        - name: ENTREPOT_CONFIG
          value: /etc/entrepot/entrepot.yaml
        - name: ENTREPOT_CACHE_DIR
          value: /data
        {{- if $credentials }}
        - name: ENTREPOT_CREDS_FILE
          value: /etc/entrepot-credentials/credentials.yaml
        {{- end }}
        {{- if include "entrepot.hasCa" . }}
        - name: SSL_CERT_FILE
          value: /etc/entrepot-ca/ca.crt
        {{- end }}
        {{- with .Values.proxy.httpProxy }}
        - name: HTTP_PROXY
          value: {{ . | quote }}
        {{- end }}
        {{- with .Values.proxy.httpsProxy }}
        - name: HTTPS_PROXY
          value: {{ . | quote }}
        {{- end }}
        {{- with .Values.proxy.noProxy }}
        - name: NO_PROXY
          value: {{ . | quote }}
        {{- end }}
        {{- with .Values.extraEnvVars }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.extraEnvFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- range $index, $port := $ports }}
        - name: {{ $port.name }}
          containerPort: {{ $port.port }}
          protocol: TCP
          {{- if and (eq $index 0) $daemonset $.Values.hostPort.enabled }}
          hostPort: {{ $.Values.hostPort.port }}
          {{- with $.Values.hostPort.hostIP }}
          hostIP: {{ . | quote }}
          {{- end }}
          {{- end }}
        {{- end }}
      startupProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 1
        failureThreshold: 60
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
        failureThreshold: 2
      livenessProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      resources: {{- toYaml .Values.resources | nindent 8 }}
      {{- $security := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) }}
      securityContext: {{- toYaml (mergeOverwrite $security (deepCopy .Values.securityContext)) | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/entrepot
          readOnly: true
        - name: cache
          mountPath: /data
        {{- if $credentials }}
        - name: credentials
          mountPath: /etc/entrepot-credentials
          readOnly: true
        {{- end }}
        {{- range .Values.registryPullSecrets }}
        - name: pull-secret-{{ .secret }}
          mountPath: /etc/entrepot-pull-secrets/{{ .secret }}
          readOnly: true
        {{- end }}
        {{- if include "entrepot.hasCa" . }}
        - name: ca
          mountPath: /etc/entrepot-ca
          readOnly: true
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "entrepot.fullname" . }}
    {{- if eq $cache "emptyDir" }}
    - name: cache
      emptyDir:
        sizeLimit: {{ .Values.persistence.size | quote }}
    {{- else if eq $cache "hostPath" }}
    - name: cache
      hostPath:
        path: {{ .Values.persistence.hostPath | quote }}
        type: DirectoryOrCreate
    {{- else if or (eq $cache "claim") (ne .Values.mode "statefulset") }}
    - name: cache
      persistentVolumeClaim:
        claimName: {{ default (include "entrepot.fullname" .) .Values.persistence.existingClaim }}
    {{- end }}
    {{- if $credentials }}
    - name: credentials
      secret:
        secretName: {{ $credentials }}
        defaultMode: 0440
        items:
          - key: {{ ternary .Values.existingSecretKey "credentials.yaml" (ne .Values.existingSecret "") }}
            path: credentials.yaml
    {{- end }}
    {{- range .Values.registryPullSecrets }}
    - name: pull-secret-{{ .secret }}
      secret:
        secretName: {{ .secret }}
        defaultMode: 0440
    {{- end }}
    {{- if include "entrepot.hasCa" . }}
    - name: ca
      {{- if .Values.ca.existingSecret }}
      secret:
        secretName: {{ .Values.ca.existingSecret }}
      {{- else }}
      configMap:
        name: {{ default (printf "%s-ca" (include "entrepot.fullname" .)) .Values.ca.existingConfigMap }}
      {{- end }}
        items:
          - key: {{ ternary "ca.crt" .Values.ca.key (ne .Values.ca.bundle "") }}
            path: ca.crt
    {{- end }}
    {{- if $nodeSetup }}
    {{- include "entrepot.nodeVolumes" . | nindent 4 }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or .Values.tolerations $daemonset }}
  tolerations: {{- include "entrepot.tolerations" . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
