"""The Grafana dashboard that the chart delivers, made with Grafana's own library: what it writes, Grafana reads."""

from __future__ import annotations

import json

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from keyturn_dev.dashboard_rows import NAMESPACE, ROWS, Chart, Number
from keyturn_dev.paths import PROJECT

DASHBOARD = PROJECT / "charts" / "keyturn" / "files" / "dashboard.json"
_SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
_COLUMNS = 24


def _query(expression: str, legend: str, *, now: bool) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(expression).legend_format(legend)
    return query.instant() if now else query.range()


def _number(panel: Number) -> stat.Panel:
    steps = [model.Threshold(value=None, color="green")]
    if panel.bad is not None:
        steps = [
            model.Threshold(value=None, color="red" if panel.low else "green"),
            model.Threshold(value=panel.bad, color="green" if panel.low else "red"),
        ]
    thresholds = build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
    target = _query(panel.expression, NAMESPACE, now=True).ref_id("A")
    shown = stat.Panel().title(panel.title).description(panel.meaning).datasource(_SOURCE).unit(panel.unit)
    return shown.thresholds(thresholds).height(4).span(panel.width).with_target(target)


def _chart(panel: Chart) -> timeseries.Panel:
    shown = timeseries.Panel().title(panel.title).description(panel.meaning).datasource(_SOURCE).unit(panel.unit)
    shown = shown.min(0).fill_opacity(10).height(7).span(panel.width)
    for number, (legend, expression) in enumerate(panel.curves.items()):
        shown = shown.with_target(_query(expression, legend, now=False).ref_id(chr(ord("A") + number)))
    return shown


def make() -> model.Dashboard:
    """The dashboard as Grafana's model of it."""
    source = build.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    namespace = (
        build.QueryVariable("namespace")
        .label("Namespace")
        .datasource(_SOURCE)
        .query("label_values(keyturn_api_build_info, namespace)")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(include_all=True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )
    made = build.Dashboard("Keyturn").uid("keyturn").tags(["keyturn"]).refresh("30s").time("now-3h", "now").readonly()
    made = made.with_variable(source).with_variable(namespace)
    for row in ROWS:
        made = made.with_row(build.Row(row.title))
        for panel in row.panels:
            made = made.with_panel(_number(panel) if isinstance(panel, Number) else _chart(panel))
    return made.build()


def render() -> str:
    """The file."""
    return json.dumps(make(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
