package srptest

import (
	"errors"
	"testing"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
)

// Form says how a command's data buffer is described, where the ring has several ways.
type Form uint8

// The forms.
const (
	FormDirect Form = iota // one piece
	FormInline             // a list that comes with the command
	FormTable              // a list in the initiator's memory
)

// Command is a command for a Link. The carrier under test moves Out from and In to
// memory of the initiator; In is filled when the command has ended.
type Command struct {
	LUN     scsi.LUN
	Tag     uint64
	Attr    scsi.TaskAttr
	CDB     []byte
	Out, In []byte
	Form    Form
	// Func makes it a task management function, of TaskTag where it is about one.
	Func    scsi.TMFunc
	TaskTag uint64
}

// Overflow is the residual of rings that say of an overflow only that it was one.
const Overflow = -1 << 63

// Result is what came back. OutResidual and InResidual are positive for underflow,
// negative for overflow.
type Result struct {
	Status                  scsi.Status
	Sense                   []byte
	OutResidual, InResidual int64
	// Response is the answer to a function: TMComplete, TMNotSupported, TMFailed
	// or TMRejected; rings that tell no more apart give these.
	Response scsi.TMResponse
	// Down: the link ended instead.
	Down bool
}

// ErrDown: the link has ended.
var ErrDown = errors.New("the link is down")

// Link is an initiator at one carrier. Any goroutine.
type Link interface {
	// Start sends c. The channel gets its result; nothing where the command was
	// aborted and the ring says nothing of that.
	Start(c *Command) (<-chan Result, error)
	// Limit is how many requests may be under way.
	Limit() int
	// Hung takes back a command that was aborted: no result may come any more.
	// True: none has come, or one that says just that.
	Hung(tag uint64) bool
	// Close ends the link.
	Close()
}

// Wire is a Link of a carrier of SRP information units.
type Wire interface {
	Link
	// Send sends an information unit as it is.
	Send(b []byte) error
	// Down is closed when the target has ended the link.
	Down() <-chan struct{}
	// Memory is the initiator's.
	Memory() *Memory
}

// Moves is what a Link may offer where the test decides about the carrier's moves.
type Moves interface {
	// Hold keeps moves from now on, or lets them go by again. Release ends those
	// that are held with err. Held is how many there are.
	Hold(on bool)
	Release(err error)
	Held() int
}

// Factory makes a carrier on port p, with its ring on l, and an initiator that is
// logged in. The suite closes link, then port.
type Factory func(tb testing.TB, p *srp.Port, l *loop.Loop) Link

// Timeout bounds every wait of the suite.
const Timeout = tempotest.Patience
