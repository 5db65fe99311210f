package peer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Vtgt starts the binary over disks with a generated configuration, its files in dir.
func Vtgt(binary, dir string, disks []Disk) (*Server, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("%w: run make build", err)
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	// The socket's path must fit sockaddr_un: not below a deep dir.
	sockDir, err := os.MkdirTemp("", "vtgt-")
	if err != nil {
		return nil, err
	}
	s := &Server{Name: "vtgt", Version: version(binary, "--version"), addr: addr, Socket: filepath.Join(sockDir, "s")}
	conf := filepath.Join(dir, "vtgt.yaml")
	if err := os.WriteFile(conf, []byte(vtgtConfig(addr, s.Socket, filepath.Join(dir, "state"), disks)), 0o600); err != nil {
		return nil, err
	}
	s.stop = func() { s.cmd.Process.Signal(syscall.SIGTERM) }
	err = s.start(dir, binary, "serve", "--config", conf)
	if err != nil {
		os.RemoveAll(sockDir)
		return nil, err
	}
	go func() {
		<-s.exit
		os.RemoveAll(sockDir)
	}()
	return s, nil
}

func vtgtConfig(addr, socket, state string, disks []Disk) string {
	var b strings.Builder
	b.WriteString("version: 1\ndisks:\n")
	for _, d := range disks {
		fmt.Fprintf(&b, "  - {name: %q, store: %q, blockSize: %d, physicalBlockSize: %d, thin: %t, removable: %t, readOnly: %t, shared: true}\n",
			d.Name, "file:"+d.Path, d.BlockSize, d.PhysicalBlockSize, d.Thin, d.Removable, d.ReadOnly)
	}
	b.WriteString("targets:\n")
	for _, d := range disks {
		fmt.Fprintf(&b, "  - {name: %q, luns: [{lun: 0, disk: %q}], iscsi: {iqn: %q}}\n", d.Name, d.Name, iqn+d.Name)
	}
	fmt.Fprintf(&b, "iscsi: {portals: [%q]}\napi: {socket: %q}\nstate: %q\n", addr, socket, state)
	return b.String()
}
