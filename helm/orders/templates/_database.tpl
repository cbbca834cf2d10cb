{{/*
Helpers for the databases of billing, notify and the archive. Their argument is a component.
The chart assumes that a Secret of the user holds a PostgreSQL URL: it cannot read that Secret, and SQLite needs none.
*/}}

{{- define "orders.database.url" -}}
{{- default (printf "sqlite:///data/%s.db" .name) .values.database.url }}
{{- end }}

{{/* "true" if the database is SQLite, else empty. */}}
{{- define "orders.database.isSqlite" -}}
{{- if and (not .values.database.existingSecret) (not .values.database.host) (hasPrefix "sqlite:" (include "orders.database.url" .)) }}true{{ end }}
{{- end }}

{{- define "orders.database.env" -}}
{{- $database := .values.database }}
{{- if $database.host }}
# What the URL leaves out is taken from the variables of libpq.
- name: DATABASE_URL
  value: postgres://
- name: PGHOST
  value: {{ $database.host | quote }}
- name: PGPORT
  value: {{ $database.port | int | quote }}
- name: PGDATABASE
  value: {{ default .name $database.name | quote }}
- name: PGUSER
  value: {{ default .name $database.user | quote }}
{{- with $database.existingSecret }}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $database.key }}
{{- end }}
{{- with $database.sslMode }}
- name: PGSSLMODE
  value: {{ . }}
{{- end }}
{{- else }}
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
{{- if include "orders.ca.configMap" .root }}
# With sslmode=verify-full in the URL, or sslMode.
- name: PGSSLROOTCERT
  value: {{ include "orders.ca.file" .root }}
{{- end }}
{{- end }}

{{/* With SQLite: one replica, and never two pods that use the same file. */}}
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
# For SQLite's temporary files.
- name: tmp
  emptyDir: {}
{{- end }}
{{- with include "orders.ca.configMap" .root }}
- name: ca
  configMap:
    name: {{ . }}
    items:
      - {key: {{ $.root.Values.ca.key }}, path: ca.crt}
{{- end }}
{{- end }}

{{- define "orders.database.mounts" -}}
{{- if include "orders.database.isSqlite" . }}
- name: data
  mountPath: /data
- name: tmp
  mountPath: /tmp
{{- end }}
{{- if include "orders.ca.configMap" .root }}
- name: ca
  mountPath: {{ include "orders.ca.file" .root | dir }}
  readOnly: true
{{- end }}
{{- end }}

{{- define "orders.database.claim" -}}
{{- if and (include "orders.database.isSqlite" .) .values.persistence.enabled }}
{{- include "orders.component.claim" . }}
{{- end }}
{{- end }}
