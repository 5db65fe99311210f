package libvirt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/vtgt/vtgt/api"
)

// probe asks the vhost-user socket of an export for its features, as QEMU does first:
// one that takes a connection and does not answer would freeze the whole virtual machine.
// The export must have no virtual machine.
func probe(ctx context.Context, path string) error {
	d := net.Dialer{Timeout: 10 * time.Second}
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	// VHOST_USER_GET_FEATURES (1), version 1, no payload; host byte order.
	var q [12]byte
	binary.NativeEndian.PutUint32(q[0:], 1)
	binary.NativeEndian.PutUint32(q[4:], 1)
	if _, err := nc.Write(q[:]); err != nil {
		return err
	}
	var r [20]byte
	if _, err := io.ReadFull(nc, r[:]); err != nil {
		return fmt.Errorf("it does not answer: %w", err)
	}
	if binary.NativeEndian.Uint32(r[0:]) != 1 || binary.NativeEndian.Uint32(r[8:]) != 8 {
		return errors.New("what answers is not vhost-user")
	}
	return nil
}

// vhostExport finds the export with the socket.
func vhostExport(es []api.Export) *api.Export {
	for i := range es {
		if es[i].Kind == ViaVHost {
			return &es[i]
		}
	}
	return nil
}

// awaitFree waits until the export has no virtual machine; after a probe that takes a
// moment.
func awaitFree(ctx context.Context, c *api.Client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	for {
		es, err := c.Exports(ctx)
		if err != nil {
			return err
		}
		for _, e := range es {
			if e.Target == name && e.Kind == ViaVHost && e.State == "listening" {
				return nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("target %s: its vhost-user export is not free again", name)
		}
	}
}
