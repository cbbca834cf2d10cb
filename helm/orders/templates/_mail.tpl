{{/* "true" if the inbox is enabled, else empty. It is enabled by the value, or by default if no mail server is set. */}}
{{- define "orders.inbox.enabled" -}}
{{- if kindIs "bool" .Values.inbox.enabled }}
{{- if .Values.inbox.enabled }}true{{ end }}
{{- else if not (or .Values.smtp.url .Values.smtp.existingSecret) }}true{{ end }}
{{- end }}

{{- define "orders.smtp.url" -}}
{{- if include "orders.inbox.enabled" . -}}
smtp://{{ include "orders.fullname" . }}-inbox.{{ .Release.Namespace }}.svc:1025
{{- else -}}
{{ .Values.smtp.url }}
{{- end }}
{{- end }}

{{- define "orders.smtp.env" -}}
- name: SMTP_URL
  valueFrom:
    secretKeyRef:
      {{- with .Values.smtp.existingSecret }}
      name: {{ . }}
      key: {{ $.Values.smtp.key }}
      {{- else }}
      name: {{ include "orders.fullname" . }}-notify
      key: SMTP_URL
      {{- end }}
- name: MAIL_FROM
  value: {{ .Values.smtp.from | quote }}
{{- with .Values.smtp.ehloName }}
- name: SMTP_EHLO_NAME
  value: {{ . | quote }}
{{- end }}
{{- range $phase, $seconds := .Values.smtp.timeouts }}
- name: SMTP_{{ upper $phase }}_TIMEOUT_SECONDS
  value: {{ $seconds | int64 | quote }}
{{- end }}
{{- if include "orders.ca.configMap" . }}
- name: SMTP_CA_FILE
  value: {{ include "orders.ca.file" . }}
{{- end }}
{{- end }}
