package guesttest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"testing"
	"time"
)

// qmp is a QEMU's monitor (QEMU Machine Protocol).
type qmp struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Scanner
}

// monitor connects to the monitor at a socket (-qmp unix:PATH,server=on,wait=off).
func monitor(t *testing.T, path string) *qmp {
	t.Helper()
	q := &qmp{t: t}
	poll(t, "QEMU's monitor", func() (err error) {
		q.conn, err = net.Dial("unix", path)
		return err
	})
	t.Cleanup(func() { _ = q.conn.Close() })
	q.in = bufio.NewScanner(q.conn)
	q.do("qmp_capabilities", nil)
	return q
}

// do runs a command and gives what it returns.
func (q *qmp) do(command string, args map[string]any) (ret map[string]any) {
	q.t.Helper()
	ret, err := q.try(command, args)
	if err != nil {
		q.t.Fatal(err)
	}
	return ret
}

func (q *qmp) try(command string, args map[string]any) (map[string]any, error) {
	m := map[string]any{"execute": command}
	if args != nil {
		m["arguments"] = args
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	_ = q.conn.SetDeadline(time.Now().Add(patience))
	if _, err := q.conn.Write(append(b, '\n')); err != nil {
		return nil, err
	}
	for q.in.Scan() {
		var a struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		switch err := json.Unmarshal(q.in.Bytes(), &a); {
		case err != nil:
			return nil, err
		case a.Error != nil:
			return nil, fmt.Errorf("%s: %s", command, a.Error.Desc)
		case a.Return != nil:
			ret := map[string]any{}
			_ = json.Unmarshal(a.Return, &ret)
			return ret, nil
		} // else the greeting, or an event
	}
	return nil, fmt.Errorf("%s: the monitor is gone: %v", command, q.in.Err())
}
