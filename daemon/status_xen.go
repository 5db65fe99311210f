package daemon

import "time"

// XenStatus is what a xen export knows of itself and its domain.
type XenStatus struct {
	// Initiator is the UUID by which reservations know the domain.
	Initiator string `json:"initiator"`
	// Domain, Device and Type are as configured.
	Domain    string `json:"domain"`
	Device    uint32 `json:"device"`
	Type      string `json:"type"`
	Toolstack bool   `json:"toolstack,omitempty"`
	// DomainID is the domain's number at present; nil: it is not there, or has no
	// nodes.
	DomainID *uint32 `json:"domainID,omitempty"`
	// Backend and Frontend are the xenbus states of both ends.
	Backend  string     `json:"backend,omitempty"`
	Frontend string     `json:"frontend,omitempty"`
	Since    *time.Time `json:"since,omitempty"` // when it was connected
	InFlight int        `json:"inFlight"`
	// Xenstore is why there is no connection to xenstored at present.
	Xenstore string      `json:"xenstore,omitempty"`
	Counters XenCounters `json:"counters"`
}

// XenCounters count since the export was started.
type XenCounters struct {
	Connections    uint64 `json:"connections"` // rings
	Requests       uint64 `json:"requests"`    // taken from rings
	Events         uint64 `json:"events"`      // notifications taken
	Notifies       uint64 `json:"notifies"`    // notifications given
	GrantCalls     uint64 `json:"grantCalls"`  // of the grant table
	GrantCopies    uint64 `json:"grantCopies"`
	GrantPages     uint64 `json:"grantPages"` // mapped
	BadRequests    uint64 `json:"badRequests"`
	UnknownDevices uint64 `json:"unknownDevices"` // requests for devices that are not there
	TakenOver      uint64 `json:"takenOver"`      // requests that a vtgt before us had not answered
	Unanswered     uint64 `json:"unanswered"`     // requests whose abort has failed: they are never answered
	Complaints     uint64 `json:"complaints"`     // warnings about the domain, also those that were too many to be logged
	XenstoreLosses uint64 `json:"xenstoreLosses"` // of the connection to xenstored, all exports'
}
