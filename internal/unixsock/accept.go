package unixsock

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// Accept gives take the connections that come to l until l is closed (nil), its deadline
// passes (os.ErrDeadlineExceeded) or it fails. While there is no descriptor for one, it
// stays in the backlog: scarce, unless nil, hears of that once a second.
func Accept(l *net.UnixListener, take func(*net.UnixConn), scarce func(error)) error {
	for {
		nc, err := l.AcceptUnix()
		switch {
		case err == nil:
			take(nc)
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			if scarce != nil {
				scarce(err)
			}
			time.Sleep(time.Second)
		default:
			return err
		}
	}
}
