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
{{- with include "entrepot.cacheSize" . -}}
{{- $config = mergeOverwrite (dict "cache" (dict "max_size" .)) $config -}}
{{- end -}}
{{- if or .Values.ingress.enabled .Values.httproute.enabled -}}
{{- /* Whoever comes that way has the address of the proxy: all of them together are not one client. */ -}}
{{- $config = mergeOverwrite (dict "clients" (dict "connections" 20000 "requests" 4096)) $config -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{/* How much the cache may take where that does not follow from the file system: of an emptyDir, at whose limit the pod is
evicted, and of a claim, which may be a directory of a larger file system, nine tenths; of a directory of the node all. In
front of a shared tier no more than the mirror takes there by itself. */}}
{{- define "entrepot.cacheSize" -}}
{{- $cache := include "entrepot.cache" . -}}
{{- if ne $cache "claim" -}}
{{- $units := dict "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "" 1.0 "k" 1e3 "K" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 -}}
{{- $unit := regexFind "[A-Za-z]*$" .Values.persistence.size -}}
{{- if not (hasKey $units $unit) -}}
{{- fail (printf "persistence.size: %q has no unit that a cache is measured in; use Gi" .Values.persistence.size) -}}
{{- end -}}
{{- $bytes := mulf (trimSuffix $unit .Values.persistence.size | float64) (get $units $unit) -}}
{{- $size := divf (mulf $bytes (ternary 1.0 0.9 (eq $cache "hostPath"))) 1048576.0 | floor | int64 -}}
{{- $most := ternary 10240 $size (not (empty (dig "cache" "shared" "" .Values.config))) | int64 -}}
{{- printf "%dMiB" (min $size $most) -}}
{{- end -}}
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

{{/* Where the node is, and its mirror, also for `kubectl exec … /entrepot node verify`. */}}
{{- define "entrepot.nodeEnvironment" -}}
- name: NODE_IP
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
- name: ENTREPOT_NODE_ROOT
  value: /host
- name: ENTREPOT_NODE_MIRROR
  value: {{ include "entrepot.mirror" . | quote }}
- name: ENTREPOT_NODE_CERTS_DIR
  value: {{ .Values.nodeSetup.certsDirectory | quote }}
- name: ENTREPOT_NODE_CONFIG_DIR
  value: {{ .Values.nodeSetup.configDirectory | quote }}
{{- end -}}

{{/* Goes on looking at the node, and tells Prometheus. Root, as the runtime's configuration may be root's alone. */}}
{{- define "entrepot.nodeVerify" -}}
- name: node-verify
  image: {{ include "entrepot.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - node
    - verify
    - --listen
    - {{ printf "[::]:%d" (int .Values.nodeSetup.metricsPort) | quote }}
  env: {{- include "entrepot.nodeEnvironment" . | nindent 4 }}
  ports:
    - name: node
      containerPort: {{ .Values.nodeSetup.metricsPort }}
      protocol: TCP
  resources: {{- toYaml .Values.nodeSetup.resources | nindent 4 }}
  securityContext: {{- include "entrepot.nodeSecurityContext" . | nindent 4 }}
  volumeMounts:
    - name: node-config
      mountPath: /host{{ .Values.nodeSetup.configDirectory }}
      readOnly: true
    - name: node-certs
      mountPath: /host{{ .Values.nodeSetup.certsDirectory }}
      readOnly: true
{{- end -}}

{{/* What a pod of the nodes' own has beside its containers. */}}
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
