package daemon

import (
	"fmt"
	"time"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/iscsi"
	"github.com/vtgt/vtgt/scsi"
)

// Protocol identifier and portal group of iSCSI ports (SPC-4 §7.6.1, RFC 7143 §3.5).
const (
	protocolISCSI = 5
	portalGroup   = 1
)

// iscsiExport is an exportObject.
type iscsiExport struct {
	t    *targetUnit
	cfg  *config.TargetISCSI
	port *scsi.Port
}

func (o *targetUnit) newISCSI(c *config.TargetISCSI, relID uint16) (exportObject, error) {
	return &iscsiExport{t: o, cfg: c, port: o.tg.NewPort(scsi.PortConfig{
		RelID: relID, Protocol: protocolISCSI,
		// The target port's name (RFC 7143 §4.2.7.2, SPC-4 §7.6.4.6).
		Name:       fmt.Sprintf("%s,t,0x%04x", c.IQN, portalGroup),
		DeviceName: c.IQN,
	})}, nil
}

func (e *iscsiExport) start() error {
	o := e.t
	err := o.c.srv.AddTarget(iscsi.TargetConfig{Name: e.cfg.IQN, Alias: e.cfg.Alias, Target: o.tg, Port: e.port, TPGT: portalGroup, Access: o.login()})
	if err != nil {
		return &Error{Code: CodeInternal, Object: "target " + o.name, Message: err.Error(), Err: err}
	}
	o.iscsi.Store(e)
	o.c.mu.Lock()
	o.c.names[e.cfg.IQN] = o.name
	o.c.mu.Unlock()
	for _, s := range o.c.legacy.sessions(e.cfg.IQN) {
		if err := o.c.srv.Adopt(s, o.c.legacy.set); err != nil {
			// It logs in again.
			o.c.log.Error("a session was not taken over", "target", o.name, "initiator", s.Params.InitiatorName, "err", err)
		}
	}
	return nil
}

func (e *iscsiExport) adjust(*ringSpec) error { return nil }

func (e *iscsiExport) describe(s *ExportStatus) { s.Name, s.State = e.cfg.IQN, "listening" }

func (e *iscsiExport) close(deadline time.Duration) error {
	o := e.t
	end := time.Now().Add(deadline)
	n := 0
	if o.iscsi.CompareAndSwap(e, nil) {
		n = await(deadline, func(done func(int)) error { return o.c.srv.RemoveTarget(e.cfg.IQN, deadline, done) })
	}
	left := max(time.Until(end), 50*time.Millisecond)
	await(left, func(done func(int)) error { e.port.Close(left, done); return nil })
	if n != 0 {
		return &Error{Code: CodeTimeout, Object: "target " + o.name, Message: fmt.Sprintf("%d sessions did not end within %v", n, deadline.Round(time.Millisecond)), Hint: "look at the devices below its disks"}
	}
	return nil
}
