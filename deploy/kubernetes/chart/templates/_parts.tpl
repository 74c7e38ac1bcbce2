{{/* Names, labels and the parts that all pods share. */}}
{{- define "replicator.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "replicator.selector" -}}
app.kubernetes.io/name: global-replicator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "replicator.labels" -}}
{{ include "replicator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "replicator.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "replicator.pod" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "replicator.container" -}}
image: {{ include "replicator.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "replicator.environment" -}}
- {name: REPLICATOR_LOG_FORMAT, value: json}
- {name: REPLICATOR_LOG_LEVEL, value: {{ .Values.logLevel }}}
- name: REPLICATOR_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.database.secretName }}, key: {{ .Values.database.secretKey }}}}
{{- end }}

{{/* What a process that listens on the pod's address needs besides. */}}
{{- define "replicator.serving" -}}
- name: REPLICATOR_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .Values.token.secretName }}, key: {{ .Values.token.secretKey }}}}
{{- if .Values.tls.secretName }}
- {name: REPLICATOR_TLS_CERT_FILE, value: /run/tls/tls.crt}
- {name: REPLICATOR_TLS_KEY_FILE, value: /run/tls/tls.key}
{{- else }}
- {name: REPLICATOR_INSECURE_HTTP, value: "1"}
{{- end }}
{{- end }}

{{- define "replicator.scheme" -}}
{{ if .Values.tls.secretName }}HTTPS{{ else }}HTTP{{ end }}
{{- end }}

{{- define "replicator.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http, scheme: {{ include "replicator.scheme" . }}}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: http, scheme: {{ include "replicator.scheme" . }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http, scheme: {{ include "replicator.scheme" . }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}

{{- define "replicator.mounts" -}}
- {name: scratch, mountPath: /tmp}
{{- if .Values.tls.secretName }}
- {name: tls, mountPath: /run/tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "replicator.volumes" -}}
- name: scratch
  emptyDir: {sizeLimit: 64Mi}
{{- if .Values.tls.secretName }}
- name: tls
  secret: {secretName: {{ .Values.tls.secretName }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{/* Pods of one kind on different machines, and in different zones, where there are any. */}}
{{- define "replicator.spread" -}}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "replicator.selector" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.component }}
{{- end }}
{{- end }}

{{- define "replicator.environmentFrom" -}}
{{- range .Values.environmentSecrets }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- end }}
