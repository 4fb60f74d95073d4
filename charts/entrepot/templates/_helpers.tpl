{{- define "entrepot.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "entrepot.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "entrepot.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "entrepot.selectorLabels" -}}
app.kubernetes.io/name: {{ include "entrepot.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "entrepot.labels" -}}
{{ include "entrepot.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "entrepot.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "entrepot.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "entrepot.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The configuration file: the operator's, and where the credentials are that the chart mounts. JSON. */}}
{{- define "entrepot.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- range $pull := .Values.registryPullSecrets -}}
{{- range $upstream := $pull.upstreams -}}
{{- $file := printf "/etc/entrepot-pull-secrets/%s/.dockerconfigjson" $pull.secret -}}
{{- $said := dict "upstreams" (dict $upstream (dict "credentials" (dict "docker_config" $file))) -}}
{{- $config = mergeOverwrite $config $said -}}
{{- end -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{/* What the mirror listens on: a list of {name, port}, the first for everything. JSON. */}}
{{- define "entrepot.ports" -}}
{{- $ports := list -}}
{{- range $index, $listen := default (list (dict "address" "[::]:3000")) .Values.config.listen -}}
{{- $port := regexFind "[0-9]+$" $listen.address -}}
{{- if not $port -}}
{{- fail (printf "config.listen[%d].address: %q has no port at its end" $index $listen.address) -}}
{{- end -}}
{{- if and (eq $index 0) $listen.tls -}}
{{- fail "config.listen[0].tls: the first listener also answers probes and metrics, so it has no TLS; give further ones a certificate" -}}
{{- end -}}
{{- $ports = append $ports (dict "name" (ternary "http" (printf "port-%s" $port) (eq $index 0)) "port" (int $port)) -}}
{{- end -}}
{{- toJson $ports -}}
{{- end -}}

{{- define "entrepot.port" -}}
{{- (first (fromJsonArray (include "entrepot.ports" .))).port -}}
{{- end -}}

{{- define "entrepot.credentialsSecret" -}}
{{- if .Values.existingSecret -}}
{{- .Values.existingSecret -}}
{{- else if .Values.credentials -}}
{{- printf "%s-credentials" (include "entrepot.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "entrepot.hasCa" -}}
{{- $sources := compact (list .Values.ca.bundle .Values.ca.existingConfigMap .Values.ca.existingSecret) -}}
{{- if gt (len $sources) 1 -}}
{{- fail "ca.bundle, ca.existingConfigMap and ca.existingSecret: only one of them" -}}
{{- end -}}
{{- if $sources -}}true{{- end -}}
{{- end -}}

{{- define "entrepot.nodeSetup" -}}
{{- if kindIs "bool" .Values.nodeSetup.enabled -}}
{{- if .Values.nodeSetup.enabled -}}true{{- end -}}
{{- else if eq .Values.mode "daemonset" -}}true{{- end -}}
{{- end -}}

{{/* The URL by which a node reaches the mirror; NODE_IP is filled in by the kubelet. */}}
{{- define "entrepot.mirror" -}}
{{- if .Values.nodeSetup.mirror -}}
{{- .Values.nodeSetup.mirror -}}
{{- else if and .Values.hostPort.enabled (eq .Values.mode "daemonset") -}}
{{- printf "http://%s:%d" (default "$(NODE_IP)" .Values.hostPort.hostIP) (int .Values.hostPort.port) -}}
{{- else if and (ne .Values.service.type "ClusterIP") .Values.service.nodePort -}}
{{- printf "http://$(NODE_IP):%d" (int .Values.service.nodePort) -}}
{{- else -}}
{{- fail "nodeSetup: nodes have no way to the mirror; set service.type NodePort and service.nodePort, hostPort.enabled, or nodeSetup.mirror, or switch it off with nodeSetup.enabled=false" -}}
{{- end -}}
{{- end -}}

{{/* Where the cache is: claim, ownClaim, hostPath or emptyDir. */}}
{{- define "entrepot.cache" -}}
{{- if .Values.persistence.existingClaim -}}
{{- if eq .Values.mode "statefulset" -}}
{{- fail "persistence.existingClaim: in statefulset mode each replica has a claim of its own; use mode deployment" -}}
{{- end -}}
claim
{{- else if .Values.persistence.hostPath -}}
hostPath
{{- else if not .Values.persistence.enabled -}}
emptyDir
{{- else if eq .Values.mode "daemonset" -}}
{{- fail "persistence.enabled: one claim cannot serve the pods of all nodes; in daemonset mode set persistence.hostPath, or use mode statefulset" -}}
{{- else -}}
ownClaim
{{- end -}}
{{- end -}}

{{- define "entrepot.claimSpec" -}}
accessModes: {{- toYaml .Values.persistence.accessModes | nindent 2 }}
{{- if eq .Values.persistence.storageClass "-" }}
storageClassName: ""
{{- else if .Values.persistence.storageClass }}
storageClassName: {{ .Values.persistence.storageClass | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .Values.persistence.size | quote }}
{{- end -}}

{{- define "entrepot.tolerations" -}}
{{- if .Values.tolerations -}}
{{- toYaml .Values.tolerations -}}
{{- else -}}
- operator: Exists
{{- end -}}
{{- end -}}

{{/* What the containers that change the node may do: as root, on files, and nothing else. */}}
{{- define "entrepot.nodeSecurityContext" -}}
runAsUser: 0
runAsGroup: 0
runAsNonRoot: false
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- define "entrepot.nodeMounts" -}}
- name: node-config
  mountPath: /host{{ .Values.nodeSetup.configDirectory }}
  readOnly: true
- name: node-certs
  mountPath: /host{{ .Values.nodeSetup.certsDirectory }}
{{- end -}}
{{- define "entrepot.nodeVolumes" -}}
- name: node-config
  hostPath:
    path: {{ .Values.nodeSetup.configDirectory }}
    type: DirectoryOrCreate
- name: node-certs
  hostPath:
    path: {{ .Values.nodeSetup.certsDirectory }}
    type: DirectoryOrCreate
{{- end -}}
{{/* The directories of the node as arguments, where they are not those that the program looks at. */}}
{{- define "entrepot.nodeDirectories" -}}
{{- if ne .Values.nodeSetup.certsDirectory "/etc/containerd/certs.d" }}
- --certs-dir
- {{ .Values.nodeSetup.certsDirectory | quote }}
{{- end }}
{{- if ne .Values.nodeSetup.configDirectory "/etc/containerd" }}
- --config-dir
- {{ .Values.nodeSetup.configDirectory | quote }}
{{- end }}
{{- end -}}
{{- define "entrepot.nodeInstall" -}}
- name: node-setup
  image: {{ include "entrepot.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - node
    - install
    - --root
    - /host
    - --mirror
    - {{ include "entrepot.mirror" . | quote }}
    {{- with include "entrepot.nodeDirectories" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .Values.nodeSetup.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  env:
    - name: NODE_IP
      valueFrom:
        fieldRef:
          fieldPath: status.hostIP
  resources: {{- toYaml .Values.nodeSetup.resources | nindent 4 }}
  securityContext: {{- include "entrepot.nodeSecurityContext" . | nindent 4 }}
  volumeMounts: {{- include "entrepot.nodeMounts" . | nindent 4 }}
{{- end -}}

{{/* A pod that does nothing itself, but stays on a node whose init container did something. */}}
{{- define "entrepot.nodePod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 5
priorityClassName: {{ default "system-node-critical" .Values.priorityClassName }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
tolerations: {{- include "entrepot.tolerations" . | nindent 2 }}
securityContext: {{- include "entrepot.restrictedPod" . | nindent 2 }}
containers:
  - name: hold
    {{- include "entrepot.restrictedContainer" . | nindent 4 }}
    args: [hold]
    resources: {{- toYaml .Values.nodeSetup.resources | nindent 6 }}
volumes: {{- include "entrepot.nodeVolumes" . | nindent 2 }}
{{- end -}}
{{- define "entrepot.restrictedPod" -}}
runAsUser: 65532
runAsGroup: 65532
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- define "entrepot.restrictedContainer" -}}
image: {{ include "entrepot.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}
