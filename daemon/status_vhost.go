package daemon

import "time"

// VHostStatus is what a vhost-user export knows of itself and its virtual machine.
type VHostStatus struct {
	// Initiator is the UUID by which reservations know the virtual machine.
	Initiator string `json:"initiator"`
	Targets   []int  `json:"targets"` // virtio targets
	// Since, PID and UID are of the front end (QEMU), while it is connected.
	Since *time.Time `json:"since,omitempty"`
	PID   int        `json:"pid,omitempty"`
	UID   int        `json:"uid,omitempty"`
	// Features were negotiated, DeviceStatus was set by the driver.
	Features         []string `json:"features"`
	ProtocolFeatures []string `json:"protocolFeatures"`
	DeviceStatus     string   `json:"deviceStatus,omitempty"`
	// Queues were set up by the front end; the control and the event queue are
	// among them.
	Queues      int           `json:"queues"`
	Started     int           `json:"started"`
	Enabled     int           `json:"enabled"`
	Regions     int           `json:"regions"` // of guest memory
	MemoryBytes int64         `json:"memoryBytes"`
	InFlight    int           `json:"inFlight"`
	Stuck       int           `json:"stuck"`
	Counters    VHostCounters `json:"counters"`
	Rings       []VHostRing   `json:"rings"`
}

// VHostCounters count since the export was started.
type VHostCounters struct {
	Connections     uint64 `json:"connections"`
	Rejected        uint64 `json:"rejected"` // connections beside the first
	Messages        uint64 `json:"messages"`
	UnknownMessages uint64 `json:"unknownMessages"`
	// Violations of the protocol or by a driver ended a connection or a ring.
	Violations    uint64 `json:"violations"`
	Starts        uint64 `json:"starts"` // of rings
	Resets        uint64 `json:"resets"`
	MemoryChanges uint64 `json:"memoryChanges"`
	Requests      uint64 `json:"requests"`
	Kicks         uint64 `json:"kicks"`
	Calls         uint64 `json:"calls"`
	Rounds        uint64 `json:"rounds"` // batches of requests
	BadTarget     uint64 `json:"badTarget"`
	Replayed      uint64 `json:"replayed"` // found in flight after a restart
}

// VHostRing is one virtqueue.
type VHostRing struct {
	Index    int    `json:"index"`
	Started  bool   `json:"started"`
	Enabled  bool   `json:"enabled"`
	Size     int    `json:"size"` // entries
	InFlight int    `json:"inFlight"`
	Stuck    int    `json:"stuck"`
	Requests uint64 `json:"requests"`
	Kicks    uint64 `json:"kicks"`
	Calls    uint64 `json:"calls"`
	Failed   string `json:"failed,omitempty"`
}
