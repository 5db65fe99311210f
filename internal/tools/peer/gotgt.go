package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// gotgtVersion is what it is measured as.
const gotgtVersion = "v0.2.2"

// BuildGotgt builds gotgt in a module of its own below dir, by the module proxy, unless
// that was done before, and returns the program. It bounds how long that takes.
func BuildGotgt(ctx context.Context, dir string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(dir, "gotgt-"+gotgtVersion))
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "gotgt")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module gotgtbuild\n\ngo 1.22\n"), 0o644); err != nil {
		return "", err
	}
	const module = "github.com/gostor/gotgt"
	for _, args := range [][]string{{"get", module + "@" + gotgtVersion}, {"build", "-o", program, module}} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "CGO_ENABLED=0", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building gotgt: go %v: %w: %s", args, err, out)
		}
	}
	return program, nil
}

// Gotgt starts the program that BuildGotgt made, over image files.
func Gotgt(program, dir string, disks []Disk) (*Server, error) {
	s := &Server{Name: "gotgt", Version: "gotgt " + gotgtVersion, env: []string{"HOME=" + dir}}
	defer s.unlessStarted()
	var err error
	if s.addr, err = s.reserve(); err != nil {
		return nil, err
	}
	control, err := s.reserve()
	if err != nil {
		return nil, err
	}
	type object = map[string]any
	var stores []object
	targets := object{}
	for i, d := range disks {
		stores = append(stores, object{"deviceID": 1000 + i, "path": "file:" + d.Path, "online": true,
			"thinProvisioning": d.Thin, "blockShift": bits.Len(uint(d.BlockSize)) - 1})
		targets[iqn+d.Name] = object{"tpgts": object{"1": []int{0}}, "luns": object{"0": 1000 + i}}
	}
	text, err := json.Marshal(object{"storages": stores, "iscsiportals": []object{{"id": 0, "portal": s.addr}}, "iscsitargets": targets})
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, ".gotgt")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(conf, "config.json"), text, 0o644); err != nil {
		return nil, err
	}
	_, port, _ := cutAddr(s.addr)
	s.stop = func() { s.cmd.Process.Signal(syscall.SIGKILL) } // nothing is to be saved
	err = s.start(dir, program, "daemon", "--host", "tcp://"+control, "--log", "error", "--port", strconv.Itoa(port))
	if err != nil {
		return nil, err
	}
	return s, nil
}
