#!/usr/bin/env python3
"""Writes dashboard.json, the Grafana dashboard: its panels stand here in one table. Standard library only."""

import json
import pathlib

RATE = "[$__rate_interval]"


def quantiles(name):
    return [
        (f"histogram_quantile({q}, sum by (le) (rate({name}_bucket{{instance=~\"$instance\"}}{RATE})))", f"p{int(q * 100)}")
        for q in (0.5, 0.95, 0.99)
    ]


def rate(name, legend, selector=""):
    return (f"sum(rate({name}{{instance=~\"$instance\"{selector}}}{RATE}))", legend)


def gauge(name, legend, selector=""):
    return (f"sum({name}{{instance=~\"$instance\"{selector}}})", legend)


PANELS = [  # title, unit, [(expression, legend)]
    ("Requests", "short", [gauge("vllm:num_requests_running", "running"), gauge("vllm:num_requests_waiting", "waiting")]),
    ("Tokens per second", "short", [rate("vllm:generation_tokens_total", "generated"), rate("vllm:prompt_tokens_total", "prompt")]),
    ("KV blocks", "short", [gauge("quire_kv_blocks", s, f', state="{s}"') for s in ("held", "cached", "free")]),
    ("Prefix cache hit rate", "percentunit", [
        (f"sum(rate(vllm:prefix_cache_hits_total{{instance=~\"$instance\"}}{RATE})) / sum(rate(vllm:prefix_cache_queries_total{{instance=~\"$instance\"}}{RATE}))", "hits")]),
    ("Time to first token", "s", quantiles("vllm:time_to_first_token_seconds")),
    ("Time between tokens", "s", quantiles("vllm:inter_token_latency_seconds")),
    ("Time in the queue", "s", quantiles("vllm:request_queue_time_seconds")),
    ("Whole requests", "s", quantiles("vllm:e2e_request_latency_seconds")),
    ("Requests over, by ending", "reqps", [rate("quire_requests_total", e, f', ending="{e}"') for e in ("finished", "cancelled", "expired", "rejected", "failed")]),
    ("Tokens computed and what became of them", "short", [rate(f"quire_tokens_{k}_total", k) for k in ("computed", "delivered", "recomputed", "discarded")]),
    ("Preemptions and cut streams", "short", [rate("vllm:num_preemptions_total", "preemptions"), rate("quire_stream_stalls_total", "streams cut")]),
    ("Engine thread, by phase of the step", "percentunit", [(f"sum by (phase) (rate(quire_step_seconds_total{{instance=~\"$instance\"}}{RATE}))", "{{phase}}")]),
]


def panel(i, title, unit, targets):
    return {
        "id": i + 1,
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"h": 8, "w": 12, "x": 12 * (i % 2), "y": 8 * (i // 2)},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [{"refId": chr(65 + t), "expr": expr, "legendFormat": legend} for t, (expr, legend) in enumerate(targets)],
    }


def main():
    dashboard = {
        "title": "quire",
        "uid": "quire",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                {
                    "name": "instance",
                    "type": "query",
                    "datasource": {"type": "prometheus", "uid": "${datasource}"},
                    "query": {"query": "label_values(vllm:num_requests_running, instance)", "refId": "instance"},
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "refresh": 2,
                },
            ]
        },
        "panels": [panel(i, *p) for i, p in enumerate(PANELS)],
    }
    path = pathlib.Path(__file__).parent / "dashboard.json"
    path.write_text(json.dumps(dashboard, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
