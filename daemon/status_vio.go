package daemon

import "time"

// VIOStatus is what a vio export knows of itself and its pSeries guest.
type VIOStatus struct {
	// Initiator is the UUID by which reservations know the guest.
	Initiator string `json:"initiator"`
	IDs       []int  `json:"ids"` // on the guest's virtual SCSI bus
	// Since, PID and UID are of QEMU, while it is connected; Name and UUID what it
	// calls the virtual machine, Unit the adapter's unit address.
	Since *time.Time `json:"since,omitempty"`
	PID   int        `json:"pid,omitempty"`
	UID   int        `json:"uid,omitempty"`
	Name  string     `json:"name,omitempty"`
	UUID  string     `json:"uuid,omitempty"`
	Unit  uint32     `json:"unit,omitempty"`
	// Client is the state of the guest's driver: no client, resetting, connected,
	// logged in.
	Client string `json:"client,omitempty"`
	// Partition, its number and OS are what the driver says.
	Partition       string      `json:"partition,omitempty"`
	PartitionNumber uint32      `json:"partitionNumber,omitempty"`
	OS              string      `json:"os,omitempty"`
	RequestLimit    int         `json:"requestLimit"`
	InFlight        int         `json:"inFlight"`
	Stuck           int         `json:"stuck"`
	Counters        VIOCounters `json:"counters"`
}

// VIOCounters count since the export was started.
type VIOCounters struct {
	Connections  uint64 `json:"connections"`
	Rejected     uint64 `json:"rejected"` // connections beside the first, or of another version
	Entries      uint64 `json:"entries"`  // of the client's command/response queue
	Ignored      uint64 `json:"ignored"`  // of these, before its INIT as a rule
	Commands     uint64 `json:"commands"`
	Functions    uint64 `json:"functions"` // task management
	Responses    uint64 `json:"responses"`
	MADs         uint64 `json:"mads"`  // management datagrams
	Inits        uint64 `json:"inits"` // beginnings of the driver
	Logins       uint64 `json:"logins"`
	LoginRejects uint64 `json:"loginRejects"`
	Resumes      uint64 `json:"resumes"`    // transport events 6 sent after a restart
	Busy         uint64 `json:"busy"`       // commands beyond the request limit
	QueueFull    uint64 `json:"queueFull"`  // responses that waited for room
	Violations   uint64 `json:"violations"` // of the protocols: the client, or QEMU, was disconnected
	MoveErrors   uint64 `json:"moveErrors"` // transfers that failed
}
