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

{{- define "inferd.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "inferd.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Refuse two ports of a Service that are one: a schema cannot compare them. */}}
{{- define "inferd.checkPorts" -}}
{{- $ports := dict "service.grpcPort" .Values.service.grpcPort "service.metricsPort" .Values.service.metricsPort -}}
{{- if .Values.security.tlsSecret -}}
{{- $_ := set $ports "security.probePort" .Values.security.probePort -}}
{{- end -}}
{{- range $name, $port := $ports -}}
{{- range $other, $same := $ports -}}
{{- if and (lt $name $other) (eq (int $port) (int $same)) -}}
{{- fail (printf "%s and %s are both %d: each needs a port of its own" $name $other (int $port)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Refuse what does not fit together, with a sentence, which Helm does not show of a schema. */}}
{{- define "inferd.checkAutoscaling" -}}
{{- with .Values.autoscaling -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas is %d, and autoscaling.maxReplicas only %d" (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- if and (eq .by "keda") (not .prometheusUrl) -}}
{{- fail "autoscaling.by is keda, which has to know where Prometheus is: autoscaling.prometheusUrl" -}}
{{- end -}}
{{- end -}}
{{- end }}
