{{/* Labels of every object of the chart. */}}
{{- define "metricsstack.labels" -}}
{{ include "metricsstack.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: metricsstack
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels that select the operator's pods. */}}
{{- define "metricsstack.selector" -}}
app.kubernetes.io/name: metricsstack-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What every pod of the chart says about itself, so that the "restricted" Pod Security level admits it. */}}
{{- define "metricsstack.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "metricsstack.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
