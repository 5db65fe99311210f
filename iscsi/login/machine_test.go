package login

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

const (
	host = "iqn.2026-11.org.example:host"
	disk = "iqn.2026-11.org.example:disk"
)

// talk is an initiator that makes Login Requests for a Machine by hand.
type talk struct {
	t    testing.TB
	m    *Machine
	edit func(h *pdu.BHS)
	stat uint32
}

func testConfig() Config {
	return Config{
		TPGT: 7,
		Lookup: func(p *Params) (TargetInfo, pdu.LoginStatus) {
			switch p.TargetName {
			case disk:
				if p.TSIH != 0 && p.TSIH != 0x55 {
					return TargetInfo{}, pdu.LoginSessionDoesNotExist
				}
				return TargetInfo{Alias: "a disk", TPGT: 3}, pdu.LoginSuccess
			case disk + "-moved":
				return TargetInfo{Redirect: "[2001:db8::1]:3260"}, pdu.LoginTargetMovedTemporarily
			case disk + "-forbidden":
				return TargetInfo{}, pdu.LoginAuthorizationFailure
			case disk + "-down":
				return TargetInfo{}, pdu.LoginServiceUnavailable
			}
			return TargetInfo{}, pdu.LoginNotFound
		},
		Admit: func(p *Params) pdu.LoginStatus {
			if p.TSIH == 0 {
				p.TSIH = 0x1234
			}
			return pdu.LoginSuccess
		},
	}
}

func newTalk(t testing.TB, cfg Config) *talk { return &talk{t: t, m: New(cfg)} }

// send sends text (a list of "Key=value") and returns the answer.
func (k *talk) send(csg, nsg pdu.Stage, text ...string) (h pdu.BHS, answer []string, st State) {
	k.t.Helper()
	var data []byte
	for _, s := range text {
		data = append(append(data, s...), 0)
	}
	h, b, st := k.raw(csg, nsg, data)
	kvs, err := pdu.ParseText(b)
	if err != nil && !h.Continue() {
		k.t.Fatalf("the answer is no text: %q: %v", b, err)
	}
	for _, kv := range kvs {
		answer = append(answer, kv.String())
	}
	return h, answer, st
}

func (k *talk) raw(csg, nsg pdu.Stage, data []byte) (pdu.BHS, []byte, State) {
	k.t.Helper()
	var h pdu.BHS
	h.Reset(pdu.OpLoginRequest)
	h.SetImmediate(true)
	h.SetCSG(csg)
	if nsg != csg {
		h.SetTransit(true)
		h.SetNSG(nsg)
	}
	h.SetISID([6]byte{0x80, 1, 2, 3, 4, 5})
	h.SetITT(0x77)
	h.SetCmdSN(100)
	h.SetDataSegmentLength(len(data))
	if k.edit != nil {
		k.edit(&h)
	}
	r, b, st := k.m.Step(&h, data)
	if r == nil {
		return pdu.BHS{}, nil, st
	}
	if r.Opcode() != pdu.OpLoginResponse || r.ITT() != h.ITT() || r.ISID() != h.ISID() || r.DataSegmentLength() != len(b) || len(b) > MaxLoginSegment {
		k.t.Fatalf("response %x with %d bytes to %x", r[:], len(b), h[:])
	}
	if (st == Failed) == (r.LoginStatus() == pdu.LoginSuccess) {
		k.t.Fatalf("state %v with status %v", st, r.LoginStatus())
	}
	if st != Failed {
		if k.stat != 0 && r.StatSN() != k.stat {
			k.t.Fatalf("StatSN %d, want %d", r.StatSN(), k.stat)
		}
		k.stat = r.StatSN() + 1
		if r.ExpCmdSN() != 100 || r.MaxCmdSN() != 100+127 {
			k.t.Fatalf("ExpCmdSN %d MaxCmdSN %d", r.ExpCmdSN(), r.MaxCmdSN())
		}
	}
	return *r, b, st
}

var names = []string{"InitiatorName=" + host, "TargetName=" + disk}

const (
	sec = pdu.SecurityNegotiation
	op  = pdu.OperationalNegotiation
	ffp = pdu.FullFeaturePhase
)

// login logs in with operational text alone and wants it to succeed.
func login(t *testing.T, cfg Config, text ...string) (Params, map[string]string) {
	t.Helper()
	k := newTalk(t, cfg)
	h, answer, st := k.send(op, ffp, append(append([]string{}, names...), text...)...)
	if st != Done {
		t.Fatalf("%v: %v %v %v", text, st, h.LoginStatus(), k.m.Err())
	}
	if !h.Transit() || h.NSG() != ffp || h.CSG() != op || h.TSIH() != 0x1234 {
		t.Fatalf("last response %x", h[:])
	}
	m := make(map[string]string)
	for _, s := range answer {
		key, v, _ := strings.Cut(s, "=")
		m[key] = v
	}
	return k.m.Params(), m
}

func TestDefaults(t *testing.T) {
	p, answer := login(t, testConfig())
	want := Params{
		InitiatorName: host, TargetName: disk, ISID: [6]byte{0x80, 1, 2, 3, 4, 5}, TSIH: 0x1234, TPGT: 3,
		AuthMethod: "None", ProtocolLevel: 1,
		InitialR2T: true, ImmediateData: true,
		MaxRecvDataSegmentLength: 262144, MaxXmitDataSegmentLength: 8192,
		MaxBurstLength: 262144, FirstBurstLength: 65536,
		MaxOutstandingR2T: 1, MaxConnections: 1, DefaultTime2Wait: 2, DefaultTime2Retain: 20,
		DataPDUInOrder: true, DataSequenceInOrder: true,
		ExpCmdSN: 100, StatSN: 1,
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("%+v\nwant %+v", p, want)
	}
	if !reflect.DeepEqual(answer, map[string]string{"TargetPortalGroupTag": "3", "TargetAlias": "a disk", "MaxRecvDataSegmentLength": "262144"}) {
		t.Error(answer)
	}
	if p.InitiatorPort() != host+",i,0x800102030405" || p.TargetPort() != disk+",t,0x0003" {
		t.Error(p.InitiatorPort(), p.TargetPort())
	}
}

// TestKeys has, for every key, what the initiator offers, what the answer is (in a
// normal and in a discovery session), and the policy where it is not the default.
func TestKeys(t *testing.T) {
	noDigests := func(c *Config) { c.NoDigests = true }
	needR2T := func(c *Config) { c.RequireInitialR2T = true }
	noImm := func(c *Config) { c.NoImmediateData = true }
	const none = "" // no answer
	for _, tc := range []struct {
		offer, answer string
		policy        func(*Config)
		check         func(p *Params) bool
	}{
		{"HeaderDigest=None", "None", nil, func(p *Params) bool { return !p.HeaderDigest }},
		{"HeaderDigest=CRC32C", "CRC32C", nil, func(p *Params) bool { return p.HeaderDigest && !p.DataDigest }},
		{"HeaderDigest=CRC32C,None", "CRC32C", nil, func(p *Params) bool { return p.HeaderDigest }},
		{"HeaderDigest=None,CRC32C", "None", nil, func(p *Params) bool { return !p.HeaderDigest }},
		{"HeaderDigest=X-org.example.md5,CRC32C", "CRC32C", nil, func(p *Params) bool { return p.HeaderDigest }},
		{"HeaderDigest=CRC32C,None", "None", noDigests, func(p *Params) bool { return !p.HeaderDigest }},
		{"HeaderDigest=CRC32C", "CRC32C", noDigests, func(p *Params) bool { return p.HeaderDigest }},
		{"DataDigest=CRC32C", "CRC32C", nil, func(p *Params) bool { return p.DataDigest && !p.HeaderDigest }},
		{"DataDigest=None", "None", nil, func(p *Params) bool { return !p.DataDigest }},
		{"MaxConnections=1", "1", nil, nil},
		{"MaxConnections=8", "1", nil, func(p *Params) bool { return p.MaxConnections == 1 }},
		{"MaxConnections=65535", "1", nil, nil},
		{"InitiatorAlias=some host", none, nil, func(p *Params) bool { return p.InitiatorAlias == "some host" }},
		{"InitialR2T=Yes", "Yes", nil, func(p *Params) bool { return p.InitialR2T }},
		{"InitialR2T=No", "No", nil, func(p *Params) bool { return !p.InitialR2T }},
		{"InitialR2T=No", "Yes", needR2T, func(p *Params) bool { return p.InitialR2T }},
		{"InitialR2T=Yes", "Yes", needR2T, func(p *Params) bool { return p.InitialR2T }},
		{"ImmediateData=Yes", "Yes", nil, func(p *Params) bool { return p.ImmediateData }},
		{"ImmediateData=No", "No", nil, func(p *Params) bool { return !p.ImmediateData }},
		{"ImmediateData=Yes", "No", noImm, func(p *Params) bool { return !p.ImmediateData }},
		{"ImmediateData=No", "No", noImm, func(p *Params) bool { return !p.ImmediateData }},
		{"MaxRecvDataSegmentLength=512", none, nil, func(p *Params) bool { return p.MaxXmitDataSegmentLength == 512 }},
		{"MaxRecvDataSegmentLength=0x40000", none, nil, func(p *Params) bool { return p.MaxXmitDataSegmentLength == 262144 }},
		{"MaxRecvDataSegmentLength=16777215", none, nil, func(p *Params) bool {
			return p.MaxXmitDataSegmentLength == 1<<24-1 && p.MaxRecvDataSegmentLength == 262144
		}},
		{"MaxBurstLength=512", "512", nil, func(p *Params) bool { return p.MaxBurstLength == 512 && p.FirstBurstLength == 512 }},
		{"MaxBurstLength=262144", "262144", nil, func(p *Params) bool { return p.MaxBurstLength == 262144 }},
		{"MaxBurstLength=16776192", "1048576", nil, func(p *Params) bool { return p.MaxBurstLength == 1<<20 }},
		{"FirstBurstLength=512", "512", nil, func(p *Params) bool { return p.FirstBurstLength == 512 }},
		{"FirstBurstLength=262144", "262144", nil, func(p *Params) bool { return p.FirstBurstLength == 262144 }},
		{"FirstBurstLength=16777215", "262144", nil, func(p *Params) bool { return p.FirstBurstLength == 262144 }},
		{"DefaultTime2Wait=0", "2", nil, func(p *Params) bool { return p.DefaultTime2Wait == 2 }},
		{"DefaultTime2Wait=3600", "3600", nil, func(p *Params) bool { return p.DefaultTime2Wait == 3600 }},
		{"DefaultTime2Retain=0", "0", nil, func(p *Params) bool { return p.DefaultTime2Retain == 0 }},
		{"DefaultTime2Retain=3600", "0", nil, func(p *Params) bool { return p.DefaultTime2Retain == 0 }},
		{"DefaultTime2Retain=20", "5", func(c *Config) { c.Time2Retain = 5 }, func(p *Params) bool { return p.DefaultTime2Retain == 5 }},
		{"MaxOutstandingR2T=1", "1", nil, func(p *Params) bool { return p.MaxOutstandingR2T == 1 }},
		{"MaxOutstandingR2T=65535", "16", nil, func(p *Params) bool { return p.MaxOutstandingR2T == 16 }},
		{"DataPDUInOrder=Yes", "Yes", nil, nil},
		{"DataPDUInOrder=No", "Yes", nil, func(p *Params) bool { return p.DataPDUInOrder }},
		{"DataSequenceInOrder=Yes", "Yes", nil, nil},
		{"DataSequenceInOrder=No", "Yes", nil, func(p *Params) bool { return p.DataSequenceInOrder }},
		{"ErrorRecoveryLevel=0", "0", nil, nil},
		{"ErrorRecoveryLevel=2", "0", nil, func(p *Params) bool { return p.ErrorRecoveryLevel == 0 }},
		{"SessionType=Normal", none, nil, func(p *Params) bool { return !p.Discovery }},
		{"TaskReporting=RFC3720", "RFC3720", nil, nil},
		{"TaskReporting=FastAbort,ResponseFence,RFC3720", "RFC3720", nil, nil},
		{"iSCSIProtocolLevel=0", "0", nil, func(p *Params) bool { return p.ProtocolLevel == 0 }},
		{"iSCSIProtocolLevel=1", "1", nil, func(p *Params) bool { return p.ProtocolLevel == 1 }},
		{"iSCSIProtocolLevel=31", "1", nil, func(p *Params) bool { return p.ProtocolLevel == 1 }},
		{"IFMarker=No", "No", nil, nil},
		{"IFMarker=Yes", "No", nil, nil},
		{"OFMarker=No", "No", nil, nil},
		{"OFMarker=Yes", "No", nil, nil},
		{"IFMarkInt=2048~8192", "Reject", nil, nil},
		{"OFMarkInt=2048", "Reject", nil, nil},
		{"X-org.example.key=1", "NotUnderstood", nil, nil},
		{"SomethingNew=1", "NotUnderstood", nil, nil},
		{"RDMAExtensions=Yes", "NotUnderstood", nil, nil},
		{"X#NodeArchitecture=VMware 8", none, nil, nil},
		{"TargetAlias=NotUnderstood", none, nil, nil},
		{"TargetPortalGroupTag=NotUnderstood", none, nil, nil},
	} {
		t.Run(tc.offer, func(t *testing.T) {
			cfg := testConfig()
			if tc.policy != nil {
				tc.policy(&cfg)
			}
			key, _, _ := strings.Cut(tc.offer, "=")
			p, answer := login(t, cfg, tc.offer)
			got, ok := answer[key]
			if key == "MaxRecvDataSegmentLength" || strings.HasPrefix(key, "Target") {
				if ok == (got == "") {
					t.Error("not declared")
				}
			} else if got != tc.answer {
				t.Errorf("answer %q, want %q", got, tc.answer)
			}
			if tc.check != nil && !tc.check(&p) {
				t.Errorf("result %+v", p)
			}

			// In a discovery session.
			k := newTalk(t, cfg)
			text := []string{"InitiatorName=" + host, "SessionType=Discovery"}
			if key != "SessionType" {
				text = append(text, tc.offer)
			}
			h, list, st := k.send(op, ffp, text...)
			if st != Done {
				t.Fatalf("discovery: %v %v", h.LoginStatus(), k.m.Err())
			}
			row := lookupKey(key)
			if irrelevant := row != nil && row.normal; irrelevant != strings.Contains(strings.Join(list, " "), key+"=Irrelevant") {
				t.Errorf("discovery: %v", list)
			}
			if k.m.Params().TPGT != 7 {
				t.Error("discovery: portal group")
			}
		})
	}
}

// TestKeysRefused has offers that end the login, with the status.
func TestKeysRefused(t *testing.T) {
	for _, tc := range []struct {
		text   string // separated by spaces
		status pdu.LoginStatus
		answer string // part of the text that goes along
	}{
		{"HeaderDigest=MD5", pdu.LoginInitiatorError, "HeaderDigest=Reject"},
		{"HeaderDigest=", pdu.LoginInitiatorError, "HeaderDigest=Reject"},
		{"DataDigest=none", pdu.LoginInitiatorError, "DataDigest=Reject"},
		{"MaxConnections=0", pdu.LoginInitiatorError, "MaxConnections=Reject"},
		{"MaxConnections=65536", pdu.LoginInitiatorError, "MaxConnections=Reject"},
		{"InitialR2T=maybe", pdu.LoginInitiatorError, "InitialR2T=Reject"},
		{"ImmediateData=yes", pdu.LoginInitiatorError, "ImmediateData=Reject"},
		{"MaxRecvDataSegmentLength=511", pdu.LoginInitiatorError, "MaxRecvDataSegmentLength=Reject"},
		{"MaxRecvDataSegmentLength=16777216", pdu.LoginInitiatorError, "MaxRecvDataSegmentLength=Reject"},
		{"MaxBurstLength=511", pdu.LoginInitiatorError, "MaxBurstLength=Reject"},
		{"MaxBurstLength=18446744073709551615", pdu.LoginInitiatorError, "MaxBurstLength=Reject"},
		{"FirstBurstLength=1", pdu.LoginInitiatorError, "FirstBurstLength=Reject"},
		{"FirstBurstLength=-1", pdu.LoginInitiatorError, "FirstBurstLength=Reject"},
		{"DefaultTime2Wait=3601", pdu.LoginInitiatorError, "DefaultTime2Wait=Reject"},
		{"DefaultTime2Retain=3601", pdu.LoginInitiatorError, "DefaultTime2Retain=Reject"},
		{"MaxOutstandingR2T=0", pdu.LoginInitiatorError, "MaxOutstandingR2T=Reject"},
		{"ErrorRecoveryLevel=3", pdu.LoginInitiatorError, "ErrorRecoveryLevel=Reject"},
		{"DataPDUInOrder=", pdu.LoginInitiatorError, "DataPDUInOrder=Reject"},
		{"TaskReporting=FastAbort", pdu.LoginInitiatorError, "TaskReporting=Reject"},
		{"IFMarker=perhaps", pdu.LoginInitiatorError, "IFMarker=Reject"},
		{"SessionType=Other", pdu.LoginSessionTypeNotSupported, ""},
		{"SessionType=", pdu.LoginSessionTypeNotSupported, ""},
		{"MaxBurstLength=4096 MaxBurstLength=4096", pdu.LoginInitiatorError, ""},
		{"X-a=1 X-a=1", pdu.LoginInitiatorError, ""},
		{"SendTargets=All", pdu.LoginInitiatorError, ""},
		{"AuthMethod=None", pdu.LoginInitiatorError, ""}, // not in this stage
		{"TargetAddress=1.2.3.4", pdu.LoginInitiatorError, ""},
		{"TargetPortalGroupTag=1", pdu.LoginInitiatorError, ""},
		{"TargetAlias=x", pdu.LoginInitiatorError, ""},
		{"InitialR2T=NotUnderstood", pdu.LoginInitiatorError, ""},
		{"HeaderDigest=Reject", pdu.LoginInitiatorError, ""},
		{"MaxRecvDataSegmentLength=Irrelevant", pdu.LoginInitiatorError, ""},
		{"InitiatorAlias=" + strings.Repeat("a", 256), pdu.LoginInitiatorError, ""},
		{"NoEqualsSign", pdu.LoginInitiatorError, ""},
		{"iSCSIProtocolLevel=32", pdu.LoginInitiatorError, "iSCSIProtocolLevel=Reject"},
		{"1key=1", pdu.LoginInitiatorError, ""},
	} {
		t.Run(fmt.Sprintf("%.40s", tc.text), func(t *testing.T) {
			k := newTalk(t, testConfig())
			h, answer, st := k.send(op, ffp, append(append([]string{}, names...), strings.Fields(tc.text)...)...)
			if st != Failed || h.LoginStatus() != tc.status {
				t.Fatalf("%v %v %v", st, h.LoginStatus(), answer)
			}
			if !strings.Contains(strings.Join(answer, " "), tc.answer) {
				t.Errorf("answer %v", answer)
			}
			if h[1] != 0 {
				t.Errorf("flags %#x in a login reject", h[1])
			}
			if k.m.Err() == nil || len(k.m.Err().Error()) > 300 {
				t.Errorf("reason: %v", k.m.Err())
			}
			if _, _, st := k.send(op, ffp); st != Drop {
				t.Errorf("after the end: %v", st)
			}
		})
	}
}

// FirstBurstLength depends on three other keys, in whatever order they come.
func TestFirstBurst(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"FirstBurstLength=131072 MaxBurstLength=65536", "65536"},
		{"MaxBurstLength=65536 FirstBurstLength=131072", "65536"},
		{"FirstBurstLength=65536 InitialR2T=Yes ImmediateData=No", "Irrelevant"},
		{"FirstBurstLength=65536 InitialR2T=No ImmediateData=No", "65536"},
		{"FirstBurstLength=65536 InitialR2T=Yes ImmediateData=Yes", "65536"},
	} {
		_, answer := login(t, testConfig(), strings.Fields(tc.text)...)
		if answer["FirstBurstLength"] != tc.want {
			t.Errorf("%s: %v", tc.text, answer)
		}
	}
}

func TestNamesAndTargets(t *testing.T) {
	in, tn := "InitiatorName="+host, "TargetName="+disk
	for _, tc := range []struct {
		name   string
		text   []string
		edit   func(h *pdu.BHS)
		status pdu.LoginStatus
	}{
		{"no InitiatorName", []string{tn}, nil, pdu.LoginMissingParameter},
		{"nothing", nil, nil, pdu.LoginMissingParameter},
		{"no TargetName", []string{in}, nil, pdu.LoginMissingParameter},
		{"no TargetName in a normal session", []string{in, "SessionType=Normal"}, nil, pdu.LoginMissingParameter},
		{"empty InitiatorName", []string{"InitiatorName=", tn}, nil, pdu.LoginInitiatorError},
		{"long InitiatorName", []string{"InitiatorName=iqn." + strings.Repeat("x", 220), tn}, nil, pdu.LoginInitiatorError},
		{"comma in InitiatorName", []string{"InitiatorName=iqn.x,i,0x1", tn}, nil, pdu.LoginInitiatorError},
		{"control character", []string{"InitiatorName=iqn.x\ny", tn}, nil, pdu.LoginInitiatorError},
		{"twice", []string{in, in, tn}, nil, pdu.LoginInitiatorError},
		{"unknown target", []string{in, tn + "x"}, nil, pdu.LoginNotFound},
		{"impossible target", []string{in, "TargetName=\x01"}, nil, pdu.LoginNotFound},
		{"forbidden target", []string{in, tn + "-forbidden"}, nil, pdu.LoginAuthorizationFailure},
		{"target is down", []string{in, tn + "-down"}, nil, pdu.LoginServiceUnavailable},
		{"no such session", []string{in, tn}, func(h *pdu.BHS) { h.SetTSIH(9) }, pdu.LoginSessionDoesNotExist},
		{"discovery with TSIH", []string{in, "SessionType=Discovery"}, func(h *pdu.BHS) { h.SetTSIH(9) }, pdu.LoginSessionDoesNotExist},
		{"version too high", []string{in, tn}, func(h *pdu.BHS) { h.SetVersionMax(2); h.SetVersionMin(1) }, pdu.LoginUnsupportedVersion},
		{"additional header", []string{in, tn}, func(h *pdu.BHS) { h.SetAHSLength(4) }, pdu.LoginInitiatorError},
		{"length is a lie", []string{in, tn}, func(h *pdu.BHS) { h.SetDataSegmentLength(5) }, pdu.LoginInitiatorError},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newTalk(t, testConfig())
			k.edit = tc.edit
			h, _, st := k.send(op, ffp, tc.text...)
			if st != Failed || h.LoginStatus() != tc.status {
				t.Errorf("%v %v: %v", st, h.LoginStatus(), k.m.Err())
			}
		})
	}

	k := newTalk(t, testConfig())
	h, answer, st := k.send(sec, op, in, tn+"-moved")
	if st != Failed || h.LoginStatus() != pdu.LoginTargetMovedTemporarily || !reflect.DeepEqual(answer, []string{"TargetAddress=[2001:db8::1]:3260"}) {
		t.Error("redirect:", st, h.LoginStatus(), answer)
	}
	k = newTalk(t, testConfig())
	k.edit = func(h *pdu.BHS) { h.SetVersionMax(5) }
	if h, _, st := k.send(op, ffp, in, tn); st != Done || h.VersionActive() != 0 || h.VersionMax() != 0 {
		t.Error("a range of versions:", st, h.LoginStatus())
	}
	// Names compare in lower case.
	k = newTalk(t, testConfig())
	if _, _, st := k.send(op, ffp, "InitiatorName="+strings.ToUpper(host), "TargetName="+strings.ToUpper(disk)); st != Done || k.m.Params().InitiatorName != host {
		t.Error("upper case:", st, k.m.Err())
	}
	// A second connection of a session that there is.
	k = newTalk(t, testConfig())
	k.edit = func(h *pdu.BHS) { h.SetTSIH(0x55); h.SetCID(3) }
	if h, _, st := k.send(op, ffp, in, tn, "HeaderDigest=CRC32C"); st != Done || h.TSIH() != 0x55 || k.m.Params().CID != 3 {
		t.Error("second connection:", st, k.m.Err())
	}
	// Admission is refused at the last moment.
	cfg := testConfig()
	cfg.Admit = func(*Params) pdu.LoginStatus { return pdu.LoginOutOfResources }
	k = newTalk(t, cfg)
	if h, _, st := k.send(op, ffp, in, tn); st != Failed || h.LoginStatus() != pdu.LoginOutOfResources {
		t.Error("admission:", st, h.LoginStatus())
	}
	// Without hooks there is no target, and no harm.
	k = newTalk(t, Config{})
	if h, _, st := k.send(op, ffp, in, tn); st != Failed || h.LoginStatus() != pdu.LoginNotFound {
		t.Error("no lookup:", st, h.LoginStatus())
	}
	k = newTalk(t, Config{})
	if h, _, st := k.send(op, ffp, in, "SessionType=Discovery"); st != Done || h.TSIH() == 0 {
		t.Error("no admission hook:", st, h.LoginStatus())
	}
	k = newTalk(t, testConfig())
	var req pdu.BHS
	req.Reset(pdu.OpLoginRequest)
	req.SetITT(5)
	if r := k.m.Refuse(&req, pdu.LoginOutOfResources, "full"); r.LoginStatus() != pdu.LoginOutOfResources || r.ITT() != 5 || k.m.Err() == nil {
		t.Error("Refuse")
	}
	if k.m.Status() != pdu.LoginOutOfResources {
		t.Error("Status")
	}
}

func TestStages(t *testing.T) {
	type step struct {
		csg, nsg pdu.Stage
		text     string
		edit     func(h *pdu.BHS)
		state    State
		transit  bool
		status   pdu.LoginStatus
	}
	n := strings.Join(names, " ")
	none := n + " AuthMethod=None"
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"security, operational", []step{{sec, op, none, nil, More, true, 0}, {op, ffp, "", nil, Done, true, 0}}},
		{"security, then straight on", []step{{sec, ffp, none, nil, Done, true, 0}}},
		{"security without AuthMethod", []step{{sec, op, n, nil, More, true, 0}, {op, ffp, "", nil, Done, true, 0}}},
		{"lingering in both", []step{{sec, sec, none, nil, More, false, 0}, {sec, sec, "", nil, More, false, 0}, {sec, op, "", nil, More, true, 0},
			{op, op, "HeaderDigest=None", nil, More, false, 0}, {op, op, "", nil, More, false, 0}, {op, ffp, "", nil, Done, true, 0}}},
		{"operational only", []step{{op, op, n, nil, More, false, 0}, {op, ffp, "", nil, Done, true, 0}}},
		{"begins in full feature phase", []step{{ffp, ffp, n, nil, Failed, false, pdu.LoginInitiatorError}}},
		{"begins in stage 2", []step{{2, ffp, n, nil, Failed, false, pdu.LoginInitiatorError}}},
		{"back to security", []step{{op, op, n, nil, More, false, 0}, {sec, op, "", nil, Failed, false, pdu.LoginInitiatorError}}},
		{"stage forgotten", []step{{sec, op, none, nil, More, true, 0}, {sec, op, "", nil, Failed, false, pdu.LoginInitiatorError}}},
		{"stage without transition", []step{{sec, sec, none, nil, More, false, 0}, {op, ffp, "", nil, Failed, false, pdu.LoginInitiatorError}}},
		{"T to stage 2", []step{{sec, 2, none, nil, Failed, false, pdu.LoginInitiatorError}}},
		{"T to the same stage", []step{{op, op, n, func(h *pdu.BHS) { h.SetTransit(true); h.SetNSG(op) }, Failed, false, pdu.LoginInitiatorError}}},
		{"T backwards", []step{{op, sec, n, nil, Failed, false, pdu.LoginInitiatorError}}},
		{"T and C", []step{{op, ffp, n, func(h *pdu.BHS) { h.SetContinue(true) }, Failed, false, pdu.LoginInitiatorError}}},
		{"ISID changes", []step{{sec, op, none, nil, More, true, 0}, {op, ffp, "", func(h *pdu.BHS) { h.SetISID([6]byte{}) }, Failed, false, pdu.LoginInitiatorError}}},
		{"TSIH changes", []step{{sec, op, none, nil, More, true, 0}, {op, ffp, "", func(h *pdu.BHS) { h.SetTSIH(1) }, Failed, false, pdu.LoginInitiatorError}}},
		{"CID changes", []step{{sec, op, none, nil, More, true, 0}, {op, ffp, "", func(h *pdu.BHS) { h.SetCID(1) }, Failed, false, pdu.LoginInitiatorError}}},
		{"version changes", []step{{sec, op, none, nil, More, true, 0}, {op, ffp, "", func(h *pdu.BHS) { h.SetVersionMax(1) }, Failed, false, pdu.LoginInitiatorError}}},
		{"operational key in security", []step{{sec, op, none + " HeaderDigest=None", nil, Failed, false, pdu.LoginInitiatorError}}},
		{"AuthMethod twice", []step{{sec, sec, none, nil, More, false, 0}, {sec, op, "AuthMethod=None", nil, Failed, false, pdu.LoginInitiatorError}}},
		{"key twice in two requests", []step{{op, op, n + " InitialR2T=No", nil, More, false, 0}, {op, ffp, "InitialR2T=No", nil, Failed, false, pdu.LoginInitiatorError}}},
		{"TargetName late", []step{{op, op, "InitiatorName=" + host + " SessionType=Discovery", nil, More, false, 0}, {op, ffp, "TargetName=" + disk, nil, Failed, false, pdu.LoginInitiatorError}}},
		{"another PDU", []step{{sec, op, none, nil, More, true, 0}, {op, ffp, "", func(h *pdu.BHS) { h.SetOpcode(pdu.OpSCSICommand) }, Failed, false, pdu.LoginInvalidDuringLogin}}},
		{"another PDU first", []step{{op, ffp, n, func(h *pdu.BHS) { h.SetOpcode(pdu.OpTextRequest) }, Drop, false, 0}}},
		{"CHAP only", []step{{sec, op, n + " AuthMethod=CHAP", nil, Failed, false, pdu.LoginAuthenticationFailure}}},
		{"CHAP or None", []step{{sec, op, n + " AuthMethod=CHAP,None", nil, More, true, 0}, {op, ffp, "", nil, Done, true, 0}}},
		{"nothing of AuthMethod", []step{{sec, op, n + " AuthMethod=", nil, Failed, false, pdu.LoginAuthenticationFailure}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newTalk(t, testConfig())
			for i, s := range tc.steps {
				k.edit = s.edit
				h, answer, st := k.send(s.csg, s.nsg, strings.Fields(s.text)...)
				if st != s.state || h.Transit() != s.transit || st != Drop && h.LoginStatus() != s.status {
					t.Fatalf("step %d: %v T %v %v: %v %v", i, st, h.Transit(), h.LoginStatus(), k.m.Err(), answer)
				}
				if st == More && (h.CSG() != s.csg || h.Transit() && h.NSG() != s.nsg || h.TSIH() != 0) {
					t.Fatalf("step %d: response %x", i, h[:])
				}
				if (k.m.Err() != nil) != (st == Failed || st == Drop) {
					t.Fatalf("step %d: %v with %v", i, st, k.m.Err())
				}
			}
		})
	}
}

// What the target has declared when the operational stage is left out.
func TestSecurityOnly(t *testing.T) {
	k := newTalk(t, testConfig())
	_, answer, st := k.send(sec, ffp, append(names[:2:2], "AuthMethod=None")...)
	if st != Done || !reflect.DeepEqual(answer, []string{"TargetPortalGroupTag=3", "TargetAlias=a disk", "AuthMethod=None"}) {
		t.Error(st, answer)
	}
	if p := k.m.Params(); p.MaxRecvDataSegmentLength != 8192 || p.MaxXmitDataSegmentLength != 8192 {
		t.Errorf("%+v", p)
	}
}

func TestContinuation(t *testing.T) {
	// The text of a login in pieces, cut anywhere.
	text := []byte(strings.Join(append(names[:2:2], "HeaderDigest=CRC32C", "MaxBurstLength=4096", ""), "\x00"))
	for _, size := range []int{1, 7, 40, len(text) - 1} {
		k := newTalk(t, testConfig())
		rest := text
		for len(rest) > size {
			k.edit = func(h *pdu.BHS) { h.SetContinue(true) }
			h, b, st := k.raw(op, op, rest[:size])
			if st != More || len(b) != 0 || h.Transit() || h.Continue() {
				t.Fatalf("size %d: %v %q %x: %v", size, st, b, h[:2], k.m.Err())
			}
			rest = rest[size:]
		}
		k.edit = nil
		_, _, st := k.raw(op, ffp, rest)
		if p := k.m.Params(); st != Done || !p.HeaderDigest || p.MaxBurstLength != 4096 {
			t.Errorf("size %d: %v %+v %v", size, st, p, k.m.Err())
		}
	}

	// More than 64 KiB in all.
	k := newTalk(t, testConfig())
	k.edit = func(h *pdu.BHS) { h.SetContinue(true) }
	for i := range 20 {
		_, _, st := k.raw(op, op, make([]byte, MaxLoginSegment))
		if (st == Failed) != (i == 8) {
			t.Fatalf("request %d: %v", i, st)
		}
		if st == Failed {
			break
		}
	}
	// Requests without end.
	k = newTalk(t, testConfig())
	st := More
	for i := 0; st == More; i++ {
		if i > 1000 {
			t.Fatal("an endless login")
		}
		text := names
		if i > 0 {
			text = nil
		}
		_, _, st = k.send(op, op, text...)
	}
	// A data segment that the caller did not read.
	k = newTalk(t, testConfig())
	k.edit = func(h *pdu.BHS) { h.SetDataSegmentLength(MaxLoginSegment + 1) }
	if h, _, st := k.raw(op, ffp, nil); st != Failed || h.LoginStatus() != pdu.LoginInitiatorError {
		t.Error(st)
	}
}

// Answers longer than one PDU.
func TestLongAnswer(t *testing.T) {
	var text []string
	for i := range 120 {
		text = append(text, fmt.Sprintf("X-%060d=1", i))
	}
	k := newTalk(t, testConfig())
	// The names and half of the keys, then the rest: each text goes into one PDU.
	if _, _, st := k.send(op, op, append(names[:2:2], text[0])...); st != More {
		t.Fatal(k.m.Err())
	}
	_, b, st := k.raw(op, ffp, []byte(strings.Join(append(text[1:], ""), "\x00")))
	var all []byte
	pieces := 1
	for ; st == More; pieces++ {
		if pieces > 10 {
			t.Fatal("no end")
		}
		all = append(all, b...)
		var h pdu.BHS
		h, b, st = k.raw(op, ffp, nil)
		if h.Continue() == h.Transit() {
			t.Fatalf("flags %x", h[1])
		}
	}
	all = append(all, b...)
	kvs, err := pdu.ParseText(all)
	if st != Done || err != nil || len(kvs) != 119 || pieces != 2 {
		t.Fatalf("%v %v: %d keys in %d pieces: %v", st, err, len(kvs), pieces, k.m.Err())
	}
	for _, kv := range kvs {
		if kv.Value != "NotUnderstood" {
			t.Fatal(kv)
		}
	}
	// Data instead of an empty request.
	k = newTalk(t, testConfig())
	k.send(op, op, append(names[:2:2], text[0])...)
	k.raw(op, ffp, []byte(strings.Join(append(text[1:], ""), "\x00")))
	if h, _, st := k.send(op, ffp, "HeaderDigest=None"); st != Failed || h.LoginStatus() != pdu.LoginInitiatorError {
		t.Error(st)
	}
	// More keys than anybody needs.
	k = newTalk(t, testConfig())
	if h, _, st := k.send(op, ffp, append(names[:2:2], make129()...)...); st != Failed || h.LoginStatus() != pdu.LoginInitiatorError {
		t.Error(st)
	}
}

func make129() (text []string) {
	for i := range 129 {
		text = append(text, fmt.Sprintf("X-%d=1", i))
	}
	return text
}

// challenge is an authentication of one round: the answer to Q is A.
type challenge struct{ methods []string }

func (c challenge) Methods(p *Params) []string { return c.methods }

func (c challenge) Start(p *Params, method string) (Exchange, pdu.LoginStatus) {
	if method != "CHAP" {
		return nil, pdu.LoginTargetError
	}
	return &round{}, pdu.LoginSuccess
}

type round struct{ asked bool }

func (r *round) Step(in []pdu.KeyValue) ([]pdu.KeyValue, bool, pdu.LoginStatus) {
	if !r.asked {
		r.asked = true
		return []pdu.KeyValue{{Key: "CHAP_C", Value: "0x1"}}, false, pdu.LoginSuccess
	}
	for _, kv := range in {
		if kv == (pdu.KeyValue{Key: "CHAP_R", Value: "0x2"}) {
			return []pdu.KeyValue{{Key: "CHAP_N", Value: "us"}}, true, pdu.LoginSuccess
		}
	}
	return nil, false, pdu.LoginAuthenticationFailure
}

func TestAuthenticator(t *testing.T) {
	cfg := testConfig()
	cfg.Auth = challenge{[]string{"CHAP"}}
	n := strings.Join(names, "|")
	type step struct {
		csg, nsg pdu.Stage
		text     string
		answer   string
		state    State
		transit  bool
	}
	for name, steps := range map[string][]step{
		"passed": {
			{sec, op, n + "|AuthMethod=KRB5,CHAP,None", "TargetPortalGroupTag=3|TargetAlias=a disk|AuthMethod=CHAP", More, false},
			{sec, sec, "CHAP_A=5", "CHAP_C=0x1", More, false},
			{sec, op, "CHAP_N=me|CHAP_R=0x2", "CHAP_N=us", More, true},
			{op, ffp, "", "MaxRecvDataSegmentLength=262144", Done, true},
		},
		"wrong answer": {
			{sec, op, n + "|AuthMethod=CHAP", "TargetPortalGroupTag=3|TargetAlias=a disk|AuthMethod=CHAP", More, false},
			{sec, sec, "CHAP_A=5", "CHAP_C=0x1", More, false},
			{sec, op, "CHAP_N=me|CHAP_R=0x3", "", Failed, false},
		},
		"in a hurry": {
			{sec, op, n + "|AuthMethod=CHAP", "TargetPortalGroupTag=3|TargetAlias=a disk|AuthMethod=CHAP", More, false},
			{op, ffp, "", "", Failed, false},
		},
		"no proposal":     {{sec, op, n, "TargetPortalGroupTag=3|TargetAlias=a disk", Failed, false}},
		"no proposal yet": {{sec, sec, n, "TargetPortalGroupTag=3|TargetAlias=a disk", More, false}, {sec, ffp, "", "", Failed, false}},
		"None":            {{sec, op, n + "|AuthMethod=None", "", Failed, false}},
		"skipped":         {{op, ffp, n, "", Failed, false}},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTalk(t, cfg)
			for i, s := range steps {
				h, answer, st := k.send(s.csg, s.nsg, strings.FieldsFunc(s.text, func(r rune) bool { return r == '|' })...)
				if st != s.state || h.Transit() != s.transit || st != Failed && strings.Join(answer, "|") != s.answer {
					t.Fatalf("step %d: %v T %v %v %v", i, st, h.Transit(), answer, k.m.Err())
				}
				if st == Failed && h.LoginStatus() != pdu.LoginAuthenticationFailure && name != "in a hurry" {
					t.Fatalf("step %d: %v", i, h.LoginStatus())
				}
			}
			if p := k.m.Params(); name == "passed" && p.AuthMethod != "CHAP" {
				t.Errorf("%+v", p)
			}
		})
	}
}
