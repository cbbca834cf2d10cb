{{/*
Helpers for the NATS broker. Their argument is the root context, unless a comment names another one.
*/}}

{{/* "true" if any service uses a broker, else empty. */}}
{{- define "orders.nats.used" -}}
{{- if ne .Values.interaction "http" }}true{{ end }}
{{- end }}

{{/* "true" if this service uses the broker, else empty. Argument: a component. */}}
{{- define "orders.nats.usedBy" -}}
{{- if or (eq .root.Values.interaction "broker") (and (include "orders.nats.used" .root) (ne .name "billing")) }}true{{ end }}
{{- end }}

{{/* "true" if the chart installs the server, else empty. */}}
{{- define "orders.nats.bundled" -}}
{{- if and (include "orders.nats.used" .) (not .Values.nats.url) }}true{{ end }}
{{- end }}

{{- define "orders.nats.component" -}}
{{- include "orders.component.name" (dict "root" . "name" "nats") }}
{{- end }}

{{- define "orders.nats.url" -}}
{{- default (printf "nats://%s.%s.svc:4222" (include "orders.nats.component" .) .Release.Namespace) .Values.nats.url }}
{{- end }}

{{/* Name of the Secret with the users' passwords. */}}
{{- define "orders.nats.secret" -}}
{{- default (include "orders.nats.component" .) .Values.nats.existingSecret }}
{{- end }}

{{/* Environment variables with which a service connects to the broker; empty if it does not use one. Argument: a component. */}}
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
