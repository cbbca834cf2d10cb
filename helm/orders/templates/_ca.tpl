{{/* The ConfigMap with private certificate authorities; empty if there are none. */}}
{{- define "orders.ca.configMap" -}}
{{- if .Values.ca.existingConfigMap -}}
{{ .Values.ca.existingConfigMap }}
{{- else if .Values.ca.certificates -}}
{{ include "orders.fullname" . }}-ca
{{- end }}
{{- end }}

{{/* The file with the certificates in the containers of billing, notify and the archive. */}}
{{- define "orders.ca.file" -}}
/etc/orders/ca/ca.crt
{{- end }}
