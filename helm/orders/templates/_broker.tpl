{{/*
The broker, where services talk through one. These take the root, except for orders.nats.env.
*/}}

{{/* "true" or empty: somebody talks through a broker. */}}
{{- define "orders.nats.used" -}}
{{- if ne .Values.interaction "http" }}true{{ end }}
{{- end }}

{{/* "true" or empty: this service does. Takes a component. */}}
{{- define "orders.nats.usedBy" -}}
{{- if or (eq .root.Values.interaction "broker") (and (include "orders.nats.used" .root) (ne .name "billing")) }}true{{ end }}
{{- end }}

{{/* "true" or empty: the chart brings the server. */}}
{{- define "orders.nats.bundled" -}}
{{- if and (include "orders.nats.used" .) (not .Values.nats.url) }}true{{ end }}
{{- end }}

{{- define "orders.nats.component" -}}
{{- include "orders.component.name" (dict "root" . "name" "nats") }}
{{- end }}

{{- define "orders.nats.url" -}}
{{- default (printf "nats://%s.%s.svc:4222" (include "orders.nats.component" .) .Release.Namespace) .Values.nats.url }}
{{- end }}

{{/* The Secret with the users' passwords. */}}
{{- define "orders.nats.secret" -}}
{{- default (include "orders.nats.component" .) .Values.nats.existingSecret }}
{{- end }}

{{/* Where a service finds the broker; empty if it has no use for one. Takes a component. */}}
{{- define "orders.nats.env" -}}
{{- if include "orders.nats.usedBy" . -}}
- name: NATS_URL
  value: {{ include "orders.nats.url" .root }}
- name: NATS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "orders.nats.secret" .root }}
      key: {{ .name }}
{{- end }}
{{- end }}
