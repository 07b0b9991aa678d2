{{/* Short enough for a Service of this name and "-headless". */}}
{{- define "inferd.fullname" -}}
{{- $both := printf "%s-%s" .Release.Name .Chart.Name -}}
{{- $default := contains .Chart.Name .Release.Name | ternary .Release.Name $both -}}
{{- .Values.fullnameOverride | default $default | trunc 53 | trimSuffix "-" -}}
{{- end }}

{{- define "inferd.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: server
{{- end }}

{{/* Labels of an object that is not a server: the Services must not find it. */}}
{{- define "inferd.commonLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") | quote }}
{{- end }}

{{- define "inferd.labels" -}}
{{ include "inferd.commonLabels" . }}
app.kubernetes.io/component: server
{{- end }}

{{- define "inferd.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "inferd.serviceAccountName" -}}
{{- $default := ternary (include "inferd.fullname" .) "default" .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default $default -}}
{{- end }}

{{/* What every pod of the chart has alike. */}}
{{- define "inferd.pod" -}}
automountServiceAccountToken: false
# Without this a Service named inferd would set INFERD_PORT and more, which the server reads.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "inferd.podSecurityContext" . | nindent 2 }}
{{- end }}

{{/* What every container of the server's image has alike. */}}
{{- define "inferd.container" -}}
image: {{ include "inferd.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "inferd.securityContext" . | nindent 2 }}
{{- end }}

{{/* /tmp, the one folder that every container may write to. */}}
{{- define "inferd.tmp" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.tmpSizeLimit | quote }}
{{- end }}
