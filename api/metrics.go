package api

import (
	"net/http"
	"runtime"
	"sort"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metric is one family; docs/metrics.md lists the same ones and a test compares.
type metric struct {
	name   string
	help   string
	typ    prometheus.ValueType
	labels []string
	desc   *prometheus.Desc
}

// collector makes metrics of what the backend reports, at each scrape: nothing is
// counted twice and nothing costs the data path anything.
type collector struct {
	b       Backend
	version string

	build, start, revision, applied, disks, targets      *metric
	loops, memory, memoryLimit                           *metric
	sessions, discoveries, halfOpen, logins, complaints  *metric
	commands, bytesIn, bytesOut, pdusIn, pdusOut, perTgt *metric
	size, reads, writes, others, readBytes, written      *metric
	aborted, conflicts, waiting, stuck                   *metric
	stopped, latched, held                               *metric
	spaceUsed, spaceLeft                                 *metric
	errors, inFlight                                     *metric
	latency                                              *metric
	vhost, vio, xen                                      []vhostMetric
	all                                                  []*metric
}

const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue

func newCollector(b Backend, version string) *collector {
	c := &collector{b: b, version: version}
	def := func(name, help string, typ prometheus.ValueType, labels ...string) *metric {
		m := &metric{name: name, help: help, typ: typ, labels: labels, desc: prometheus.NewDesc(name, help, labels, nil)}
		c.all = append(c.all, m)
		return m
	}
	c.build = def("vtgt_build_info", "1, with the version of vtgt and of Go.", gauge, "version", "goversion")
	c.start = def("vtgt_start_time_seconds", "When the daemon started, seconds since 1970.", gauge)
	c.revision = def("vtgt_config_revision", "Number of the configuration in force.", gauge)
	c.applied = def("vtgt_config_applied_time_seconds", "When the configuration in force was applied, seconds since 1970.", gauge)
	c.disks = def("vtgt_disks", "Disks.", gauge)
	c.targets = def("vtgt_targets", "Targets.", gauge)
	c.loops = def("vtgt_loops", "Event loops.", gauge)
	c.memory = def("vtgt_buffer_memory_bytes", "Payload buffers in use.", gauge)
	c.memoryLimit = def("vtgt_buffer_memory_limit_bytes", "The limit of payload buffers.", gauge)

	c.sessions = def("vtgt_iscsi_sessions", "iSCSI sessions in full feature phase.", gauge)
	c.discoveries = def("vtgt_iscsi_discovery_sessions", "iSCSI discovery sessions.", gauge)
	c.halfOpen = def("vtgt_iscsi_half_open_connections", "iSCSI connections that have not logged in yet.", gauge)
	c.logins = def("vtgt_iscsi_logins_total", "iSCSI logins that succeeded.", counter)
	c.commands = def("vtgt_iscsi_commands_total", "SCSI commands received by iSCSI.", counter)
	c.bytesIn = def("vtgt_iscsi_received_bytes_total", "Bytes received in full feature phase, headers included.", counter)
	c.bytesOut = def("vtgt_iscsi_sent_bytes_total", "Bytes sent in full feature phase, headers included.", counter)
	c.pdusIn = def("vtgt_iscsi_received_pdus_total", "iSCSI PDUs received.", counter)
	c.pdusOut = def("vtgt_iscsi_sent_pdus_total", "iSCSI PDUs sent.", counter)
	c.complaints = def("vtgt_iscsi_complaints_total", "What iSCSI initiators did against the protocol, or were refused, by kind.", counter, "kind")
	c.perTgt = def("vtgt_target_sessions", "Sessions of a target.", gauge, "target")

	for _, m := range vhostMetrics() {
		m.metric = def(m.name, m.help, m.typ, "target")
		c.vhost = append(c.vhost, m)
	}
	for _, m := range vioMetrics() {
		m.metric = def(m.name, m.help, m.typ, "target")
		c.vio = append(c.vio, m)
	}
	for _, m := range xenMetrics() {
		m.metric = def(m.name, m.help, m.typ, "target")
		c.xen = append(c.xen, m)
	}

	c.size = def("vtgt_disk_size_bytes", "Capacity of a disk.", gauge, "disk")
	c.reads = def("vtgt_disk_reads_total", "Commands that read the medium.", counter, "disk")
	c.writes = def("vtgt_disk_writes_total", "Commands that write the medium.", counter, "disk")
	c.others = def("vtgt_disk_other_commands_total", "Commands that neither read nor write the medium.", counter, "disk")
	c.readBytes = def("vtgt_disk_read_bytes_total", "Bytes read from the medium.", counter, "disk")
	c.written = def("vtgt_disk_written_bytes_total", "Bytes written to the medium.", counter, "disk")
	c.errors = def("vtgt_disk_errors_total", "Commands that ended with CHECK CONDITION, by sense key.", counter, "disk", "sense_key")
	c.inFlight = def("vtgt_disk_commands_in_flight", "Commands that have not ended.", gauge, "disk")
	c.aborted = def("vtgt_disk_aborted_total", "Commands ended by task management or by the loss of a nexus.", counter, "disk")
	c.conflicts = def("vtgt_disk_reservation_conflicts_total", "Commands that met another nexus's reservation.", counter, "disk")
	c.waiting = def("vtgt_disk_commands_waiting", "Commands that wait for older ones.", gauge, "disk")
	c.stuck = def("vtgt_disk_commands_stuck", "Aborted commands that the store holds beyond the deadline.", gauge, "disk")
	c.stopped = def("vtgt_disk_stopped", "1: the disk stopped at an error of its store and holds its commands.", gauge, "disk")
	c.latched = def("vtgt_disk_latched", "1: a sync failed, the store refuses writes until the disk is resumed.", gauge, "disk")
	c.held = def("vtgt_disk_commands_held", "Commands that wait for the disk to be resumed.", gauge, "disk")
	c.spaceUsed = def("vtgt_disk_space_used_bytes", "What a thin disk takes of its file system.", gauge, "disk")
	c.spaceLeft = def("vtgt_disk_space_available_bytes", "What the file system of a thin disk has left.", gauge, "disk")
	c.latency = def("vtgt_disk_command_duration_seconds", "Time from a command's arrival to its end, a histogram.", prometheus.UntypedValue, "disk")
	return c
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.all {
		ch <- m.desc
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	put := func(m *metric, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(m.desc, m.typ, v, labels...)
	}
	s := c.b.Status()
	put(c.build, 1, c.version, runtime.Version())
	put(c.start, float64(s.Started.UnixMilli())/1e3)
	put(c.revision, float64(s.Revision))
	put(c.applied, float64(s.Applied.UnixMilli())/1e3)
	put(c.disks, float64(s.Disks))
	put(c.targets, float64(s.Targets))
	t := &s.Traffic
	put(c.loops, float64(t.Loops))
	put(c.memory, float64(t.MemoryUsed))
	put(c.memoryLimit, float64(t.MemoryLimit))
	put(c.sessions, float64(t.Sessions))
	put(c.discoveries, float64(t.Discoveries))
	put(c.halfOpen, float64(t.HalfOpen))
	put(c.logins, float64(t.Logins))
	put(c.commands, float64(t.Commands))
	put(c.bytesIn, float64(t.BytesIn))
	put(c.bytesOut, float64(t.BytesOut))
	put(c.pdusIn, float64(t.PDUsIn))
	put(c.pdusOut, float64(t.PDUsOut))
	for _, k := range sorted(t.Complaints) {
		put(c.complaints, float64(t.Complaints[k]), k)
	}
	for _, t := range c.b.Targets() {
		put(c.perTgt, float64(t.Sessions), t.Name)
	}
	for _, e := range c.b.Exports() {
		if e.VHost != nil {
			for _, m := range c.vhost {
				put(m.metric, m.value(&e), e.Target)
			}
		}
		if e.VIO != nil {
			for _, m := range c.vio {
				put(m.metric, m.value(&e), e.Target)
			}
		}
		if e.Xen != nil {
			for _, m := range c.xen {
				put(m.metric, m.value(&e), e.Target)
			}
		}
	}
	for _, d := range c.b.Disks() {
		u := &d.Stats
		put(c.size, float64(d.Size), d.Name)
		put(c.reads, float64(u.Reads), d.Name)
		put(c.writes, float64(u.Writes), d.Name)
		put(c.others, float64(u.Others), d.Name)
		put(c.readBytes, float64(u.ReadBytes), d.Name)
		put(c.written, float64(u.WrittenBytes), d.Name)
		put(c.inFlight, float64(u.InFlight), d.Name)
		for _, k := range sorted(u.Errors) {
			put(c.errors, float64(u.Errors[k]), d.Name, k)
		}
		put(c.aborted, float64(u.Aborted), d.Name)
		put(c.conflicts, float64(u.Conflicts), d.Name)
		put(c.waiting, float64(u.Waiting), d.Name)
		put(c.stuck, float64(u.Stuck), d.Name)
		put(c.stopped, truth(d.State == "stopped"), d.Name)
		put(c.latched, truth(d.State == "latched"), d.Name)
		put(c.held, float64(d.Held), d.Name)
		if s := d.Space; s != nil {
			put(c.spaceUsed, float64(s.Used), d.Name)
			put(c.spaceLeft, float64(s.Available), d.Name)
		}
		buckets, n := histogram(u.Latency)
		ch <- prometheus.MustNewConstHistogram(c.latency.desc, n, float64(u.LatencySum)/1e9, buckets, d.Name)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// The bounds of the histogram are 2^firstBound … 2^lastBound ns, 1 us to 17 s.
const firstBound, lastBound = 10, 34

// histogram makes cumulative buckets, bounds in seconds, of counts by power of two:
// lat[i] counts [2^i, 2^(i+1)) ns.
func histogram(lat []uint64) (buckets map[float64]uint64, n uint64) {
	buckets = make(map[float64]uint64, lastBound-firstBound+1)
	i := 0
	for bound := firstBound; bound <= lastBound; bound++ {
		for ; i < len(lat) && i < bound; i++ {
			n += lat[i]
		}
		buckets[float64(uint64(1)<<bound)/1e9] = n
	}
	for ; i < len(lat); i++ {
		n += lat[i]
	}
	return buckets, n
}

func sorted(m map[string]uint64) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	sort.Strings(ks)
	return ks
}

// registry is a registry of its own: nothing of this process is global.
func registry(b Backend, version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(b, version), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func metricsHandler(b Backend, version string) http.Handler {
	return promhttp.HandlerFor(registry(b, version), promhttp.HandlerOpts{})
}
