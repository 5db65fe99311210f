package vhosttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// driverOK is the device status that QEMU sends with a start: ACKNOWLEDGE, DRIVER and
// DRIVER_OK.
const driverOK = 1 | 2 | 4

// Start starts the rings, in the order of the style. After Stop they go on where the
// back end said that it was.
func (c *Client) Start() error {
	if c.started {
		return errors.New("the rings run")
	}
	if err := c.startInflight(); err != nil {
		return fmt.Errorf("inflight region: %w", err)
	}
	if err := c.Set(SetFeatures, false, u64s(c.negotiated())); err != nil {
		return err
	}
	if err := c.ShareMemory(); err != nil {
		return fmt.Errorf("guest memory: %w", err)
	}
	for i := range c.queues {
		if err := c.startRing(i); err != nil {
			return fmt.Errorf("ring %d: %w", i, err)
		}
	}
	if err := c.enable(1); err != nil {
		return err
	}
	// QEMU 7.2 unmasks its notifiers after the start.
	for i, q := range c.queues {
		if err := c.setFD(SetVringCall, i, q.call.fd); err != nil {
			return err
		}
	}
	if c.Protocol&ProtocolStatus != 0 {
		s, err := c.get(GetStatus)
		if err != nil {
			return err
		}
		if err := c.Set(SetStatus, false, u64s(s|driverOK)); err != nil {
			return err
		}
	}
	if err := c.sync(); err != nil {
		return err
	}
	c.started = true
	return nil
}

// negotiated is what SET_FEATURES says.
func (c *Client) negotiated() uint64 {
	c.Features = c.Offered&(c.o.Features|FeatureProtocolFeatures) | c.o.Force
	if c.logging {
		c.Features |= FeatureLogAll
	}
	return c.Features
}

func (c *Client) startInflight() error {
	if c.o.Style == QEMU10 {
		// vhost_dev_prepare_inflight: the region's layout depends on the features.
		if err := c.Set(SetFeatures, false, u64s(c.negotiated())); err != nil {
			return err
		}
	}
	if c.Protocol&ProtocolInflight == 0 {
		return nil
	}
	if c.inflight.fd < 0 {
		if err := c.takeInflight(); err != nil {
			return err
		}
	}
	return c.Set(SetInflightFD, false, c.inflightShape(), c.inflight.fd)
}

func (c *Client) startRing(i int) error {
	q := c.queues[i]
	if err := q.renew(); err != nil {
		return err
	}
	x := uint32(i)
	for _, s := range []struct {
		m    Message
		body []byte
	}{
		{SetVringNum, u32s(x, uint32(c.o.Size))},
		{SetVringBase, u32s(x, q.base)},
		{SetVringAddr, c.addr(i)},
	} {
		if err := c.Set(s.m, false, s.body); err != nil {
			return err
		}
	}
	if err := c.setFD(SetVringKick, i, q.kick.fd); err != nil {
		return err
	}
	if err := c.setFD(SetVringCall, i, q.call.fd); err != nil {
		return err
	}
	return nil
}

// enable says SET_VRING_ENABLE for every virtqueue of the device, also those that the
// driver has not set up.
func (c *Client) enable(on uint32) error {
	for i := range 2 + c.o.Queues {
		if err := c.Set(SetVringEnable, c.o.Style == QEMU10, u32s(uint32(i), on)); err != nil {
			return fmt.Errorf("enable %d of ring %d: %w", on, i, err)
		}
	}
	return nil
}

// Enable says SET_VRING_ENABLE for one virtqueue: 0 control, 1 events, then requests.
func (c *Client) Enable(ring int, on bool) error {
	v := uint32(0)
	if on {
		v = 1
	}
	return c.Set(SetVringEnable, true, u32s(uint32(ring), v))
}

// Stop stops the rings as QEMU does when the machine pauses or the device is reset.
// What the back end had taken it has answered then.
func (c *Client) Stop() error {
	if !c.started {
		return errors.New("the rings do not run")
	}
	if err := c.enable(0); err != nil {
		return err
	}
	for i, q := range c.queues {
		b, err := c.StopRing(i)
		if err != nil {
			return err
		}
		q.base = b
	}
	if c.Protocol&ProtocolStatus != 0 {
		if err := c.Set(SetStatus, false, u64s(0)); err != nil {
			return err
		}
	}
	c.started = false
	if c.o.Style == QEMU72 {
		return c.dropInflight()
	}
	return nil
}

// StopRing says GET_VRING_BASE for one virtqueue and gives its answer.
func (c *Client) StopRing(ring int) (base uint32, err error) {
	r, err := c.Call(GetVringBase, 8, u32s(uint32(ring), 0))
	if err != nil {
		return 0, fmt.Errorf("stop of ring %d: %w", ring, err)
	}
	if x := binary.NativeEndian.Uint32(r.Payload); int(x) != ring {
		return 0, fmt.Errorf("stop of ring %d: the answer is about ring %d", ring, x)
	}
	return binary.NativeEndian.Uint32(r.Payload[4:]), nil
}

// Reset is a reset of the device by its driver, after Stop: RESET_DEVICE where it was
// negotiated; rings and inflight region begin anew.
func (c *Client) Reset() error {
	if c.started {
		return errors.New("the rings run")
	}
	if c.Protocol&ProtocolReset != 0 {
		if err := c.Set(ResetDevice, false, nil); err != nil {
			return err
		}
	}
	if err := c.dropInflight(); err != nil {
		return err
	}
	for _, q := range c.queues {
		if err := q.reset(); err != nil {
			return err
		}
	}
	return c.events.init()
}

// Reconnect waits until the back end is there again and goes on as QEMU 10 does: the
// same memory, rings and inflight region, SET_VRING_BASE with the used index, no kick.
func (c *Client) Reconnect() error {
	c.Disconnect()
	end := time.Now().Add(c.o.Timeout)
	for {
		err := c.connect()
		if err == nil {
			break
		}
		c.Disconnect()
		if time.Now().After(end) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, q := range c.queues {
		// Of a packed ring QEMU knows what it was told last: the record is right.
		if !q.packed() {
			q.base = uint32(q.ring.UsedIndex())
		}
	}
	return c.Start()
}

// ShareMemory tells the back end of the present regions, live or not: each change by
// ADD_MEM_REG and REM_MEM_REG where that was negotiated, as QEMU does then, else all
// by SET_MEM_TABLE.
func (c *Client) ShareMemory() error {
	rs := c.Mem.Regions()
	if c.Protocol&ProtocolMemSlots == 0 {
		if err := c.SetMemTable(rs); err != nil {
			return err
		}
		c.shared = rs
		return nil
	}
	for _, r := range c.shared {
		if !slices.Contains(rs, r) {
			if err := c.RemRegion(r); err != nil {
				return err
			}
		}
	}
	for _, r := range rs {
		if !slices.Contains(c.shared, r) {
			if err := c.AddRegion(r); err != nil {
				return err
			}
		}
	}
	c.shared = rs
	return nil
}

func (r *Region) describe() []byte {
	return u64s(r.Guest, uint64(r.Size), r.User, uint64(r.Before))
}

// SetMemTable says SET_MEM_TABLE with these regions, eight at most.
func (c *Client) SetMemTable(rs []*Region) error {
	b := u32s(uint32(len(rs)), 0)
	var fds []int
	for _, r := range rs {
		b = append(b, r.describe()...)
		fds = append(fds, r.FD)
	}
	return c.Set(SetMemTable, true, b, fds...)
}

// AddRegion says ADD_MEM_REG.
func (c *Client) AddRegion(r *Region) error {
	return c.Set(AddMemReg, true, append(u64s(0), r.describe()...), r.FD)
}

// RemRegion says REM_MEM_REG.
func (c *Client) RemRegion(r *Region) error {
	return c.Set(RemMemReg, true, append(u64s(0), r.describe()...))
}
