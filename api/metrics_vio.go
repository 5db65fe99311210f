package api

import "github.com/prometheus/client_golang/prometheus"

// vioMetrics are families with a value for each vio export.
func vioMetrics() []vhostMetric {
	g := func(name, help string, v func(*Export) float64) vhostMetric {
		return vhostMetric{name: "vtgt_vio_" + name, help: help, typ: prometheus.GaugeValue, value: v}
	}
	n := func(name, help string, v func(*Export) uint64) vhostMetric {
		return vhostMetric{name: "vtgt_vio_" + name + "_total", help: help, typ: prometheus.CounterValue, value: func(e *Export) float64 { return float64(v(e)) }}
	}
	return []vhostMetric{
		g("connected", "1: QEMU is connected.", func(e *Export) float64 { return truth(e.State == "connected") }),
		g("failed", "1: the export does not serve.", func(e *Export) float64 { return truth(e.State == "failed") }),
		g("logged_in", "1: the guest's driver has logged in, or firmware sends commands.", func(e *Export) float64 { return truth(e.VIO.Client == "logged in") }),
		g("requests_in_flight", "Requests that have not ended.", func(e *Export) float64 { return float64(e.VIO.InFlight) }),
		g("requests_stuck", "Requests that a deadline has passed by.", func(e *Export) float64 { return float64(e.VIO.Stuck) }),
		n("connections", "Virtual machines that have connected.", func(e *Export) uint64 { return e.VIO.Counters.Connections }),
		n("rejected", "Connections turned away: there was one, or the device is of another version.", func(e *Export) uint64 { return e.VIO.Counters.Rejected }),
		n("entries", "Entries taken from the client's command/response queue.", func(e *Export) uint64 { return e.VIO.Counters.Entries }),
		n("entries_ignored", "Entries that came before the client's INIT.", func(e *Export) uint64 { return e.VIO.Counters.Ignored }),
		n("commands", "SRP_CMD units taken.", func(e *Export) uint64 { return e.VIO.Counters.Commands }),
		n("functions", "SRP_TSK_MGMT units taken.", func(e *Export) uint64 { return e.VIO.Counters.Functions }),
		n("mads", "Management datagrams taken.", func(e *Export) uint64 { return e.VIO.Counters.MADs }),
		n("inits", "Times that a client began anew.", func(e *Export) uint64 { return e.VIO.Counters.Inits }),
		n("logins", "SRP logins.", func(e *Export) uint64 { return e.VIO.Counters.Logins }),
		n("logins_rejected", "SRP logins that were rejected.", func(e *Export) uint64 { return e.VIO.Counters.LoginRejects }),
		n("resumes", "Clients told by transport event 6 that their server is back.", func(e *Export) uint64 { return e.VIO.Counters.Resumes }),
		n("busy", "Commands beyond the request limit, answered with BUSY.", func(e *Export) uint64 { return e.VIO.Counters.Busy }),
		n("queue_full", "Responses that waited for room in the client's queue.", func(e *Export) uint64 { return e.VIO.Counters.QueueFull }),
		n("violations", "Violations of the protocols that disconnected a client, or QEMU.", func(e *Export) uint64 { return e.VIO.Counters.Violations }),
		n("move_errors", "Data transfers that failed.", func(e *Export) uint64 { return e.VIO.Counters.MoveErrors }),
	}
}
