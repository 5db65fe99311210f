package login

import (
	"slices"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// TestMaxConnections: what is offered, what the target says, what comes out.
func TestMaxConnections(t *testing.T) {
	for _, c := range []struct {
		config, target uint16
		offer, want    string
	}{
		{0, 0, "8", "1"}, {4, 0, "8", "4"}, {4, 0, "2", "2"}, {4, 2, "8", "2"}, {1, 8, "8", "8"}, {4, 0, "65535", "4"},
	} {
		cfg := testConfig()
		cfg.MaxConnections = c.config
		cfg.Lookup = func(*Params) (TargetInfo, pdu.LoginStatus) {
			return TargetInfo{TPGT: 1, MaxConnections: c.target}, pdu.LoginSuccess
		}
		k := newTalk(t, cfg)
		_, answer, st := k.send(op, ffp, append(slices.Clone(names), "MaxConnections="+c.offer)...)
		if st != Done || !slices.Contains(answer, "MaxConnections="+c.want) || format(uint32(k.m.Params().MaxConnections)) != c.want {
			t.Errorf("%+v: %v %v %v", c, st, answer, k.m.Err())
		}
	}
	for _, bad := range []string{"0", "65536", "-1", "x"} {
		k := newTalk(t, testConfig())
		if _, _, st := k.send(op, ffp, append(slices.Clone(names), "MaxConnections="+bad)...); st != Failed {
			t.Errorf("MaxConnections=%s was taken", bad)
		}
	}
	// It says nothing in a discovery session.
	k := newTalk(t, testConfig())
	if _, answer, st := k.send(op, ffp, "InitiatorName="+host, "SessionType=Discovery", "MaxConnections=4"); st != Done || !slices.Contains(answer, "MaxConnections=Irrelevant") {
		t.Error(st, answer)
	}
}

// TestRecoveryLevels: levels 1 and 2 are negotiated down, not refused.
func TestRecoveryLevels(t *testing.T) {
	for _, c := range []struct {
		offer string
		ok    bool
	}{{"0", true}, {"1", true}, {"2", true}, {"3", false}, {"-1", false}} {
		k := newTalk(t, testConfig())
		_, answer, st := k.send(op, ffp, append(slices.Clone(names), "ErrorRecoveryLevel="+c.offer)...)
		if c.ok && (st != Done || !slices.Contains(answer, "ErrorRecoveryLevel=0") || k.m.Params().ErrorRecoveryLevel != 0) || !c.ok && st != Failed {
			t.Errorf("%s: %v %v", c.offer, st, answer)
		}
	}
}

// TestJoin: a further connection takes what the leading one decided, and negotiates
// what is its own.
func TestJoin(t *testing.T) {
	leading := defaults()
	leading.InitialR2T, leading.ImmediateData = false, false
	leading.MaxBurstLength, leading.FirstBurstLength = 65536, 4096
	leading.MaxOutstandingR2T, leading.MaxConnections = 7, 3
	leading.DefaultTime2Wait, leading.DefaultTime2Retain = 5, 6
	leading.ProtocolLevel = 0
	leading.HeaderDigest, leading.DataDigest = true, true
	leading.MaxXmitDataSegmentLength = 999
	cfg := testConfig()
	cfg.Lookup = func(p *Params) (TargetInfo, pdu.LoginStatus) {
		if p.TSIH == 0 {
			t.Error("TSIH")
		}
		return TargetInfo{TPGT: 1, Leading: &leading}, pdu.LoginSuccess
	}
	join := func(text ...string) (pdu.BHS, []string, State, *Machine) {
		t.Helper()
		m := New(cfg)
		var h pdu.BHS
		h.Reset(pdu.OpLoginRequest)
		h.SetImmediate(true)
		h.SetCSG(op)
		h.SetTransit(true)
		h.SetNSG(ffp)
		h.SetTSIH(0x55)
		h.SetCID(3)
		h.SetCmdSN(510)
		data := []byte(strings.Join(append(slices.Clone(names), text...), "\x00") + "\x00")
		h.SetDataSegmentLength(len(data))
		r, b, st := m.Step(&h, data)
		return *r, strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), st, m
	}
	h, answer, st, m := join("DataDigest=CRC32C,None", "MaxRecvDataSegmentLength=4096")
	p := m.Params()
	switch {
	case st != Done || h.TSIH() != 0x55 || p.TSIH != 0x55 || p.CID != 3:
		t.Fatal(st, m.Err())
	case p.InitialR2T || p.ImmediateData || p.MaxBurstLength != 65536 || p.FirstBurstLength != 4096 || p.MaxOutstandingR2T != 7 ||
		p.MaxConnections != 3 || p.DefaultTime2Wait != 5 || p.DefaultTime2Retain != 6 || p.ProtocolLevel != 0:
		t.Errorf("what the leading connection decides: %+v", p)
	case p.HeaderDigest || !p.DataDigest || p.MaxXmitDataSegmentLength != 4096:
		t.Errorf("what is the connection's own: %+v", p)
	case !slices.Contains(answer, "DataDigest=CRC32C"):
		t.Error(answer)
	}
	// Initiators that repeat the leading keys are told that they change nothing.
	_, answer, st, m = join("MaxBurstLength=512", "InitialR2T=Yes", "MaxConnections=9", "ErrorRecoveryLevel=0", "FirstBurstLength=512", "DefaultTime2Wait=60",
		"ImmediateData=Yes", "MaxOutstandingR2T=1", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes", "DefaultTime2Retain=0")
	if p := m.Params(); st != Done || p.MaxBurstLength != 65536 || p.InitialR2T || p.MaxConnections != 3 || p.FirstBurstLength != 4096 || p.DefaultTime2Wait != 5 || p.ImmediateData || p.MaxOutstandingR2T != 7 {
		t.Errorf("%v %+v", st, p)
	}
	for _, a := range answer {
		if k, v, _ := strings.Cut(a, "="); k != "TargetPortalGroupTag" && k != "MaxRecvDataSegmentLength" && v != "Irrelevant" {
			t.Error(a)
		}
	}
	// Other people's keys do not hide behind that.
	if _, _, st, _ = join("MaxBurstLength=512", "MaxBurstLength=512"); st != Failed {
		t.Error("a key twice")
	}
	if leading.MaxBurstLength != 65536 || leading.MaxXmitDataSegmentLength != 999 {
		t.Error("the session's parameters were written")
	}
}
