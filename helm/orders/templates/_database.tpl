{{/*
Databases of billing, notify and the archive. All of these take a component.
A Secret of the user's own is taken to hold PostgreSQL: the chart cannot look inside, and SQLite needs no secret.
*/}}

{{- define "orders.database.url" -}}
{{- default (printf "sqlite:///data/%s.db" .name) .values.database.url }}
{{- end }}

{{/* "true" or empty. */}}
{{- define "orders.database.isSqlite" -}}
{{- if and (not .values.database.existingSecret) (hasPrefix "sqlite:" (include "orders.database.url" .)) }}true{{ end }}
{{- end }}

{{- define "orders.database.env" -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      {{- with .values.database.existingSecret }}
      name: {{ . }}
      key: {{ $.values.database.key }}
      {{- else }}
      name: {{ include "orders.component.name" . }}
      key: DATABASE_URL
      {{- end }}
{{- end }}

{{/* One writer, and never two pods on one file. */}}
{{- define "orders.database.strategy" -}}
{{- if include "orders.database.isSqlite" . }}
type: Recreate
{{- else }}
type: RollingUpdate
rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
{{- end }}
{{- end }}

{{- define "orders.database.volumes" -}}
{{- if include "orders.database.isSqlite" . }}
- name: data
  {{- if .values.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ default (include "orders.component.name" .) .values.persistence.existingClaim }}
  {{- else }}
  emptyDir: {}
  {{- end }}
# SQLite's temporary files.
- name: tmp
  emptyDir: {}
{{- end }}
{{- end }}

{{- define "orders.database.mounts" -}}
{{- if include "orders.database.isSqlite" . }}
- name: data
  mountPath: /data
- name: tmp
  mountPath: /tmp
{{- end }}
{{- end }}

{{- define "orders.database.claim" -}}
{{- if and (include "orders.database.isSqlite" .) .values.persistence.enabled }}
{{- include "orders.component.claim" . }}
{{- end }}
{{- end }}
