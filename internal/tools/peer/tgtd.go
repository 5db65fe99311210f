package peer

import (
	"context"
	"fmt"
	"math/bits"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Tgtd starts a private tgtd over disks, tuned as fast as its iSCSI parameters
// allow: its own default of 8 KiB data segments would make the comparison unfair.
func Tgtd(dir string, disks []Disk) (*Server, error) {
	daemon, err := find("tgtd", "tgt")
	if err != nil {
		return nil, err
	}
	admin, err := find("tgtadm", "tgt")
	if err != nil {
		return nil, err
	}
	// The control channel is a UNIX socket under /run named by a number that must be
	// ours alone; a process id is.
	control := strconv.Itoa(os.Getpid())
	s := &Server{Name: "tgtd", Version: "tgtd " + version(daemon, "--version"), lun: 1}
	defer s.unlessStarted()
	if s.addr, err = s.reserve(); err != nil {
		return nil, err
	}
	adm := func(args ...string) error {
		// tgtadm waits for ever for a tgtd that ended while it asked.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, admin, append([]string{"-C", control}, args...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("tgtadm %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	s.stop = func() {
		// SIGTERM does not end it.
		for i := range disks {
			if adm("--lld", "iscsi", "--mode", "target", "--op", "delete", "--tid", strconv.Itoa(i+1), "--force") != nil {
				break
			}
		}
		// tgtadm waits for an answer that tgtd, which ends, does not give.
		go adm("--op", "delete", "--mode", "system")
		select {
		case <-s.exit:
		case <-time.After(2 * time.Second):
			s.cmd.Process.Kill()
		}
	}
	if err := s.start(dir, daemon, "-f", "-C", control, "--iscsi", "portal="+s.addr); err != nil {
		return nil, err
	}
	go func() { // it leaves its control socket behind
		<-s.exit
		os.Remove("/run/tgtd/socket." + control)
		os.Remove("/run/tgtd/socket." + control + ".lock")
	}()
	for i, d := range disks {
		tid := strconv.Itoa(i + 1)
		params := fmt.Sprintf("lbppbe=%d,thin_provisioning=%d,removable=%d,readonly=%d",
			bits.Len(uint(d.PhysicalBlockSize/d.BlockSize))-1, one(d.Thin), one(d.Removable), one(d.ReadOnly))
		lun := []string{"--mode", "logicalunit", "--op", "new", "--tid", tid, "--lun", "1", "-b", d.Path, "--blocksize", strconv.Itoa(d.BlockSize)}
		if d.Direct {
			lun = append(lun, "--bstype", "aio") // opens with O_DIRECT
		}
		steps := [][]string{
			{"--mode", "target", "--op", "new", "--tid", tid, "-T", iqn + d.Name},
			lun,
			{"--mode", "logicalunit", "--op", "update", "--tid", tid, "--lun", "1", "--params", params},
			{"--mode", "target", "--op", "update", "--tid", tid, "--name", "MaxRecvDataSegmentLength", "--value", "262144"},
			{"--mode", "target", "--op", "update", "--tid", tid, "--name", "FirstBurstLength", "--value", "262144"},
			{"--mode", "target", "--op", "update", "--tid", tid, "--name", "MaxBurstLength", "--value", "1048576"},
			{"--mode", "target", "--op", "update", "--tid", tid, "--name", "InitialR2T", "--value", "No"},
			{"--mode", "target", "--op", "bind", "--tid", tid, "-I", "ALL"},
		}
		for _, st := range steps {
			if err := adm(append([]string{"--lld", "iscsi"}, st...)...); err != nil {
				s.Close()
				return nil, err
			}
		}
	}
	return s, nil
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
