{{/* What the standard "restricted" for pods asks, and a user of the image's own. */}}
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

{{/* Where probes are answered in plaintext. */}}
{{- define "inferd.probePort" -}}
{{- ternary .Values.security.probePort 8001 (not (empty .Values.security.tlsSecret)) -}}
{{- end }}

{{/* Containers that run first get no more rights than the server, unless they say so. */}}
{{- define "inferd.initContainers" -}}
{{- $rights := include "inferd.securityContext" . | fromYaml -}}
{{- range .Values.initContainers }}
{{- /* Not `merge`, which takes a false for nothing. */}}
{{- $own := merge (dict) (.securityContext | default dict) }}
{{- range $name, $value := $rights }}
{{- if not (hasKey $own $name) }}
{{- $_ := set $own $name $value }}
{{- end }}
{{- end }}
- {{ set (deepCopy .) "securityContext" $own | toYaml | nindent 2 | trim }}
{{- end }}
{{- end }}
