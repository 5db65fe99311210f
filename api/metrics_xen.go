package api

import "github.com/prometheus/client_golang/prometheus"

// xenMetrics are families with a value for each xen export.
func xenMetrics() []vhostMetric {
	g := func(name, help string, v func(*Export) float64) vhostMetric {
		return vhostMetric{name: "vtgt_xen_" + name, help: help, typ: prometheus.GaugeValue, value: v}
	}
	n := func(name, help string, v func(*Export) uint64) vhostMetric {
		return vhostMetric{name: "vtgt_xen_" + name + "_total", help: help, typ: prometheus.CounterValue, value: func(e *Export) float64 { return float64(v(e)) }}
	}
	return []vhostMetric{
		g("connected", "1: the domain is connected.", func(e *Export) float64 { return truth(e.State == "connected") }),
		g("failed", "1: the export does not serve.", func(e *Export) float64 { return truth(e.State == "failed") }),
		g("requests_in_flight", "Requests that have not ended.", func(e *Export) float64 { return float64(e.Xen.InFlight) }),
		n("connections", "Rings that were connected.", func(e *Export) uint64 { return e.Xen.Counters.Connections }),
		n("requests", "Requests taken from rings.", func(e *Export) uint64 { return e.Xen.Counters.Requests }),
		n("events", "Notifications from the domain.", func(e *Export) uint64 { return e.Xen.Counters.Events }),
		n("notifies", "Notifications to the domain.", func(e *Export) uint64 { return e.Xen.Counters.Notifies }),
		n("grant_calls", "Calls of the grant table.", func(e *Export) uint64 { return e.Xen.Counters.GrantCalls }),
		n("grant_copies", "Copies from and to granted pages.", func(e *Export) uint64 { return e.Xen.Counters.GrantCopies }),
		n("grant_pages", "Granted pages mapped.", func(e *Export) uint64 { return e.Xen.Counters.GrantPages }),
		n("bad_requests", "Requests that are not made as they must be.", func(e *Export) uint64 { return e.Xen.Counters.BadRequests }),
		n("unknown_devices", "Requests for devices that are not there.", func(e *Export) uint64 { return e.Xen.Counters.UnknownDevices }),
		n("taken_over", "Requests that a vtgt before this one had not answered.", func(e *Export) uint64 { return e.Xen.Counters.TakenOver }),
		n("unanswered", "Requests whose abort has failed: they are never answered.", func(e *Export) uint64 { return e.Xen.Counters.Unanswered }),
		n("complaints", "Warnings about the domain, also those that were too many to be logged.", func(e *Export) uint64 { return e.Xen.Counters.Complaints }),
		n("xenstore_losses", "Connections to xenstored that were lost.", func(e *Export) uint64 { return e.Xen.Counters.XenstoreLosses }),
	}
}
