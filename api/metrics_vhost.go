package api

import "github.com/prometheus/client_golang/prometheus"

// vhostMetric is a family with a value for each vhost-user export.
type vhostMetric struct {
	*metric
	name, help string
	typ        prometheus.ValueType
	value      func(*Export) float64
}

func vhostMetrics() []vhostMetric {
	g := func(name, help string, v func(*Export) float64) vhostMetric {
		return vhostMetric{name: "vtgt_vhost_" + name, help: help, typ: gauge, value: v}
	}
	n := func(name, help string, v func(*Export) uint64) vhostMetric {
		return vhostMetric{name: "vtgt_vhost_" + name + "_total", help: help, typ: counter, value: func(e *Export) float64 { return float64(v(e)) }}
	}
	return []vhostMetric{
		g("connected", "1: a virtual machine is connected.", func(e *Export) float64 { return truth(e.State == "connected") }),
		g("failed", "1: the export does not serve.", func(e *Export) float64 { return truth(e.State == "failed") }),
		g("queues_started", "Virtqueues that run, the control and the event queue among them.", func(e *Export) float64 { return float64(e.VHost.Started) }),
		g("guest_memory_bytes", "Guest memory that is mapped.", func(e *Export) float64 { return float64(e.VHost.MemoryBytes) }),
		g("requests_in_flight", "Requests that have not ended.", func(e *Export) float64 { return float64(e.VHost.InFlight) }),
		g("requests_stuck", "Requests that a deadline has passed by.", func(e *Export) float64 { return float64(e.VHost.Stuck) }),
		n("connections", "Front ends that have connected.", func(e *Export) uint64 { return e.VHost.Counters.Connections }),
		n("rejected", "Front ends turned away because there was one.", func(e *Export) uint64 { return e.VHost.Counters.Rejected }),
		n("messages", "Messages of the vhost-user protocol taken.", func(e *Export) uint64 { return e.VHost.Counters.Messages }),
		n("violations", "Violations of the protocol, or by a driver, that ended a connection or a virtqueue.", func(e *Export) uint64 { return e.VHost.Counters.Violations }),
		n("ring_starts", "Starts of virtqueues.", func(e *Export) uint64 { return e.VHost.Counters.Starts }),
		n("resets", "Resets of the device.", func(e *Export) uint64 { return e.VHost.Counters.Resets }),
		n("memory_changes", "Changes of the map of guest memory.", func(e *Export) uint64 { return e.VHost.Counters.MemoryChanges }),
		n("requests", "Requests taken from virtqueues.", func(e *Export) uint64 { return e.VHost.Counters.Requests }),
		n("kicks", "Notifications by the driver that were read.", func(e *Export) uint64 { return e.VHost.Counters.Kicks }),
		n("calls", "Notifications of the driver.", func(e *Export) uint64 { return e.VHost.Counters.Calls }),
		n("rounds", "Batches in which requests were taken.", func(e *Export) uint64 { return e.VHost.Counters.Rounds }),
		n("bad_target", "Requests for virtio targets that are not there.", func(e *Export) uint64 { return e.VHost.Counters.BadTarget }),
		n("replayed", "Requests found in flight after a restart.", func(e *Export) uint64 { return e.VHost.Counters.Replayed }),
	}
}
