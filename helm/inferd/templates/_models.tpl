{{/* The folder of the models; none of a store in object storage, nor where the shipped model serves. */}}
{{- define "inferd.models.folder" -}}
{{- with .Values.modelRepository -}}
{{- or .path (ternary "/models" "" (not (empty (or .existingClaim .image.reference .fetch.image)))) -}}
{{- end -}}
{{- end }}

{{- define "inferd.models.settings" -}}
{{- with include "inferd.models.folder" . }}
model_repository: {{ . | quote }}
{{- end }}
{{- with .Values.modelRepository.storeUrl }}
model_store: {{ . | quote }}
store_cache: /store
{{- end }}
{{- end }}

{{- define "inferd.models.mounts" -}}
{{- with .Values.modelRepository }}
{{- if or .existingClaim .image.reference .fetch.image }}
- name: models
  mountPath: /models
  readOnly: true
  {{- with .subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "inferd.models.volumes" -}}
{{- with .Values.modelRepository }}
{{- if .existingClaim }}
- name: models
  persistentVolumeClaim:
    claimName: {{ .existingClaim | quote }}
    readOnly: true
{{- else if .image.reference }}
- name: models
  image:
    reference: {{ .image.reference | quote }}
    pullPolicy: {{ .image.pullPolicy }}
{{- else if .fetch.image }}
- name: models
  emptyDir:
    sizeLimit: {{ .fetch.sizeLimit | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* The container that fetches models. */}}
{{- define "inferd.models.fetch" -}}
{{- with .Values.modelRepository.fetch }}
{{- if .image }}
- name: fetch-models
  image: {{ .image | quote }}
  {{- with .command }}
  command:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .args }}
  args:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .secret }}
  envFrom:
    - secretRef:
        name: {{ . | quote }}
  {{- end }}
  resources:
    {{- toYaml .resources | nindent 4 }}
  securityContext:
    {{- include "inferd.securityContext" $ | nindent 4 }}
  volumeMounts:
    - name: models
      mountPath: /models
    - name: tmp
      mountPath: /tmp
{{- end }}
{{- end }}
{{- end }}

{{/* What a container needs to reach the store: its environment, with that of further Secrets. */}}
{{- define "inferd.store.env" -}}
{{- with .Values.modelRepository.storeEndpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "inferd.store.envFrom" -}}
{{- with .Values.modelRepository.storeSecret }}
- secretRef:
    name: {{ . | quote }}
{{- end }}
{{- end }}
