package vhost

import (
	"log/slog"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
)

// TargetPort is what the guest finds at one virtio target: a SCSI target device's
// port. Each has an I_T nexus of its own.
type TargetPort struct {
	ID   uint8 // byte 1 of the LUN field, 0 to 253
	Port *scsi.Port
}

// deviceConfig describes a device. Group, Targets and Initiator have no default.
type deviceConfig struct {
	Name      string // of the export, for messages
	Group     *loop.Group
	Targets   []TargetPort
	Initiator [16]byte      // initiator port identifier, stored with the export
	Deadline  time.Duration // scsi.DefaultDeadline
	Log       *slog.Logger  // nil: silence
	// Failed hears, once and on a goroutine of its own, that the device as a whole
	// has failed: its rings have been told to stop. nil: nobody asks.
	Failed func(error)
}

// device is what all rings of one export share: the SRP ports by virtio target, the
// guest's memory, events, counters. It lives as long as its nexuses are to live.
type device struct {
	conf  deviceConfig
	space *gmem.Space
}

// newDevice attaches the initiator to every target. The error is a
// *scsi.SharingError where it must not share a disk.
func newDevice(c deviceConfig) (*device, error) {
	return &device{conf: c, space: gmem.NewSpace()}, nil
}

// memory is the Space that the guest's generations are mapped into.
func (d *device) memory() *gmem.Space { return d.space }

// fail ends the service of the whole device: no ring takes another request. Any
// goroutine, any number of times; the first error counts.
func (d *device) fail(err error) {}

// err is what the device failed of, nil as long as it serves.
func (d *device) err() error { return nil }

// reset ends all commands and tells the core of a reset of each nexus
// (RESET_DEVICE), and sleeps until that is done; false: the deadline has passed.
func (d *device) reset() bool { return true }

// close ends the nexuses, after all virtqueues were closed. It sleeps; stuck is the
// number of requests that the deadline (0: the device's) has passed by: their memory
// has been cut off.
func (d *device) close(deadline time.Duration) (stuck int) { return 0 }
