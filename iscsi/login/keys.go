package login

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// Constants that answer or stand in for values (RFC 7143 §6.2).
const (
	valueNotUnderstood = "NotUnderstood"
	valueIrrelevant    = "Irrelevant"
	valueReject        = "Reject"
	valueNone          = "None"
	valueCRC32C        = "CRC32C"
)

func reserved(v string) bool {
	return v == valueNotUnderstood || v == valueIrrelevant || v == valueReject
}

// phase says when a key may be used (the Use lines of chapter 13).
type phase uint8

const (
	inSecurity    phase = 1 << iota // SecurityNegotiation
	inOperational                   // LoginOperationalNegotiation
	inFullFeature                   // Text Requests

	inLogin = inSecurity | inOperational // "any-stage"
	inAll   = inLogin | inFullFeature
)

// key is one row of chapter 13: what may be sent when, and how the answer is found.
type key struct {
	name string
	when phase
	// leading: in the first connection of a session only ("LO").
	leading bool
	// normal: irrelevant in discovery sessions.
	normal bool
	// target: only the target may send it.
	target bool
	// take judges the initiator's value, changes n.p, and returns the answer;
	// "" for declarations, which have none. An error is a negotiation failure.
	take func(n *negotiation, v string) (answer string, err error)
}

// keys is chapter 13 but for private extensions, chapter 12's AuthMethod, and the
// keys that §13.25 retired. Never written.
var keys = []key{
	{name: "AuthMethod", when: inSecurity, take: takeAuthMethod},
	{name: "HeaderDigest", when: inOperational, take: digest(func(p *Params) *bool { return &p.HeaderDigest })},
	{name: "DataDigest", when: inOperational, take: digest(func(p *Params) *bool { return &p.DataDigest })},
	{name: "MaxConnections", when: inOperational, leading: true, normal: true,
		take: lowest(1, 65535, func(c *Config) uint32 { return uint32(c.MaxConnections) },
			func(p *Params, v uint32) { p.MaxConnections = uint16(v) })},
	// Answered in text.go, which never comes here.
	{name: "SendTargets", when: inFullFeature, take: takeNothing},
	{name: "TargetName", when: inLogin, take: takeTargetName},
	{name: "InitiatorName", when: inLogin, take: takeInitiatorName},
	{name: "TargetAlias", when: inAll, target: true},
	{name: "InitiatorAlias", when: inAll, take: takeInitiatorAlias},
	{name: "TargetAddress", when: inAll, target: true},
	{name: "TargetPortalGroupTag", when: inLogin, target: true},
	{name: "InitialR2T", when: inOperational, leading: true, normal: true,
		take: boolean(true, func(c *Config) bool { return c.RequireInitialR2T },
			func(p *Params) *bool { return &p.InitialR2T })},
	{name: "ImmediateData", when: inOperational, leading: true, normal: true,
		take: boolean(false, func(c *Config) bool { return !c.NoImmediateData },
			func(p *Params) *bool { return &p.ImmediateData })},
	{name: "MaxRecvDataSegmentLength", when: inOperational | inFullFeature, take: takeMaxRecv},
	{name: "MaxBurstLength", when: inOperational, leading: true, normal: true,
		take: lowest(512, pdu.MaxDataSegmentLength, func(c *Config) uint32 { return c.MaxBurstLength },
			func(p *Params, v uint32) { p.MaxBurstLength = v })},
	{name: "FirstBurstLength", when: inOperational, leading: true, normal: true, take: takeFirstBurst},
	{name: "DefaultTime2Wait", when: inOperational, leading: true,
		take: highest(0, 3600, func(c *Config) uint32 { return uint32(c.Time2Wait) },
			func(p *Params, v uint32) { p.DefaultTime2Wait = uint16(v) })},
	{name: "DefaultTime2Retain", when: inOperational, leading: true,
		take: lowest(0, 3600, func(c *Config) uint32 { return uint32(c.Time2Retain) },
			func(p *Params, v uint32) { p.DefaultTime2Retain = uint16(v) })},
	{name: "MaxOutstandingR2T", when: inOperational, leading: true, normal: true,
		take: lowest(1, 65535, func(c *Config) uint32 { return uint32(c.MaxOutstandingR2T) },
			func(p *Params, v uint32) { p.MaxOutstandingR2T = uint16(v) })},
	// The target answers Yes: data in order is what every initiator can do.
	{name: "DataPDUInOrder", when: inOperational, leading: true, normal: true,
		take: boolean(true, func(*Config) bool { return true },
			func(p *Params) *bool { return &p.DataPDUInOrder })},
	{name: "DataSequenceInOrder", when: inOperational, leading: true, normal: true,
		take: boolean(true, func(*Config) bool { return true },
			func(p *Params) *bool { return &p.DataSequenceInOrder })},
	{name: "ErrorRecoveryLevel", when: inOperational, leading: true,
		take: lowest(0, 2, func(*Config) uint32 { return 0 },
			func(p *Params, v uint32) { p.ErrorRecoveryLevel = uint8(v) })},
	// For the leading connection by the book (§13.21), but saying it again harms
	// nobody.
	{name: "SessionType", when: inLogin, take: takeSessionType},
	{name: "TaskReporting", when: inOperational, leading: true, normal: true,
		take: choice(func(v string) bool { return v == "RFC3720" })},
	{name: "iSCSIProtocolLevel", when: inOperational, leading: true, normal: true,
		take: lowest(0, 31, func(*Config) uint32 { return 1 },
			func(p *Params, v uint32) { p.ProtocolLevel = uint8(v) })},
	{name: "X#NodeArchitecture", when: inAll, take: takeNothing},
	// Markers are retired (§13.25). "No" is among the allowed answers, and the
	// one that initiators of RFC 3720 expect; the intervals must be rejected.
	{name: "IFMarker", when: inOperational, take: takeMarker},
	{name: "OFMarker", when: inOperational, take: takeMarker},
	{name: "IFMarkInt", when: inOperational, take: takeMarkInt},
	{name: "OFMarkInt", when: inOperational, take: takeMarkInt},
}

func lookupKey(name string) *key {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}

// refusal is a failed negotiation: the status that a login ends with, and why. A
// Text Request that fails so is answered with Reject; the status is not used then.
type refusal struct {
	status pdu.LoginStatus
	reason pdu.RejectReason
	msg    string
}

func (r *refusal) Error() string { return r.msg }

// protocolError is a violation of the rules of negotiation.
func protocolError(format string, a ...any) error {
	return &refusal{pdu.LoginInitiatorError, pdu.RejectProtocolError, fmt.Sprintf(format, a...)}
}

func refuse(st pdu.LoginStatus, format string, a ...any) error {
	return &refusal{st, pdu.RejectProtocolError, fmt.Sprintf(format, a...)}
}

// rejected is what take returns with the answer Reject: negotiation has failed,
// which ends a login (§7.12).
func rejected(v, why string) (string, error) {
	return valueReject, refuse(pdu.LoginInitiatorError, "value %q: %s", clip(v), why)
}

// negotiation is the state that keys work on.
type negotiation struct {
	cfg *Config
	p   *Params
	// seen are the names of all keys that were sent: none may come twice.
	seen map[string]bool
	// count and size bound everything that is sent in one login.
	count, size int
	// auth is the AuthMethod offer, for the machine to judge.
	auth []string
	// sent says which of the identifying keys came.
	sessionType, targetName bool
	// declared is the MaxRecvDataSegmentLength of a text exchange, 0 if none: it
	// becomes effective when the exchange has ended well.
	declared uint32
}

// offer takes one pair and appends its answer, if it has one, to out.
func (n *negotiation) offer(kv pdu.KeyValue, now phase, out []byte) ([]byte, error) {
	k := lookupKey(kv.Key)
	if k != nil && k.target && reserved(kv.Value) {
		return out, nil // the reaction to something that the target declared
	}
	if n.count++; n.count > pdu.MaxKeys {
		return out, protocolError("more than %d keys", pdu.MaxKeys)
	}
	if n.seen[kv.Key] {
		return out, protocolError("key %s was sent twice", kv.Key)
	}
	if n.seen == nil {
		n.seen = make(map[string]bool)
	}
	n.seen[kv.Key] = true
	switch {
	case k == nil:
		if reserved(kv.Value) {
			return out, nil // an answer to what was not asked: not worth another
		}
		return pdu.AppendText(out, kv.Key, valueNotUnderstood), nil
	case k.target:
		return out, protocolError("key %s is the target's to send", kv.Key)
	case k.when&now == 0:
		return out, protocolError("key %s does not belong to this stage", kv.Key)
	case reserved(kv.Value):
		return out, protocolError("key %s was sent with %s though nothing was offered", kv.Key, kv.Value)
	case len(kv.Value) > pdu.MaxValue:
		return pdu.AppendText(out, kv.Key, valueReject), protocolError("key %s has a value of %d bytes", kv.Key, len(kv.Value))
	case k.normal && n.p.Discovery, k.leading && n.p.TSIH != 0:
		// Some initiators say on every connection what only the leading one
		// decides. The session's values hold; §6.2.1 has the word for it.
		return pdu.AppendText(out, kv.Key, valueIrrelevant), nil
	}
	a, err := k.take(n, kv.Value)
	if a != "" {
		out = pdu.AppendText(out, kv.Key, a)
	}
	if err != nil {
		if r, ok := err.(*refusal); ok {
			err = &refusal{r.status, r.reason, "key " + kv.Key + ": " + r.msg}
		}
	}
	return out, err
}

// boolean negotiates a boolean-value by OR (or true) or AND (or false).
func boolean(or bool, ours func(*Config) bool, field func(*Params) *bool) func(*negotiation, string) (string, error) {
	return func(n *negotiation, v string) (string, error) {
		b, err := pdu.ParseBool(v)
		if err != nil {
			return rejected(v, err.Error())
		}
		o := ours(n.cfg)
		if or {
			b = b || o
		} else {
			b = b && o
		}
		*field(n.p) = b
		return pdu.FormatBool(b), nil
	}
}

// number reads a numerical-value of [lo, hi].
func number(v string, lo, hi uint32) (uint32, error) {
	x, err := pdu.ParseNumber(v)
	if err != nil {
		_, err = rejected(v, err.Error())
		return 0, err
	}
	if x < uint64(lo) || x > uint64(hi) {
		_, err = rejected(v, fmt.Sprintf("not in %d to %d", lo, hi))
		return 0, err
	}
	return uint32(x), nil
}

func format(v uint32) string { return strconv.FormatUint(uint64(v), 10) }

// lowest negotiates a number by its minimum.
func lowest(lo, hi uint32, ours func(*Config) uint32, set func(*Params, uint32)) func(*negotiation, string) (string, error) {
	return func(n *negotiation, v string) (string, error) {
		x, err := number(v, lo, hi)
		if err != nil {
			return valueReject, err
		}
		x = min(x, ours(n.cfg))
		set(n.p, x)
		return format(x), nil
	}
}

// highest negotiates a number by its maximum.
func highest(lo, hi uint32, ours func(*Config) uint32, set func(*Params, uint32)) func(*negotiation, string) (string, error) {
	return func(n *negotiation, v string) (string, error) {
		x, err := number(v, lo, hi)
		if err != nil {
			return valueReject, err
		}
		x = max(x, ours(n.cfg))
		set(n.p, x)
		return format(x), nil
	}
}

// choice negotiates a list: the first value that can be accepted.
func choice(ok func(string) bool) func(*negotiation, string) (string, error) {
	return func(n *negotiation, v string) (string, error) {
		for _, o := range strings.Split(v, ",") {
			if ok(o) {
				return o, nil
			}
		}
		return rejected(v, "nothing that the target supports")
	}
}

// digest negotiates HeaderDigest or DataDigest: what the initiator likes best.
func digest(field func(*Params) *bool) func(*negotiation, string) (string, error) {
	return func(n *negotiation, v string) (string, error) {
		var none, crc bool
		for _, o := range strings.Split(v, ",") {
			switch o {
			case valueCRC32C:
				crc = true
			case valueNone:
				none = true
			default:
				continue
			}
			if !n.cfg.NoDigests {
				break // the first that we know
			}
		}
		switch {
		case crc && !(none && n.cfg.NoDigests):
			*field(n.p) = true
			return valueCRC32C, nil
		case none:
			*field(n.p) = false
			return valueNone, nil
		}
		return rejected(v, "neither CRC32C nor None is offered")
	}
}

func takeNothing(*negotiation, string) (string, error) { return "", nil }

func takeMarker(_ *negotiation, v string) (string, error) {
	if _, err := pdu.ParseBool(v); err != nil {
		return rejected(v, err.Error())
	}
	return "No", nil
}

// takeMarkInt answers Reject without failing the login: it is the answer that
// §13.25 demands for a key that initiators of RFC 3720 send along.
func takeMarkInt(*negotiation, string) (string, error) { return valueReject, nil }

func takeInitiatorName(n *negotiation, v string) (string, error) {
	name, err := PeerName(v)
	if err != nil {
		return "", protocolError("%q: %v", clip(v), err)
	}
	n.p.InitiatorName = name
	return "", nil
}

func takeTargetName(n *negotiation, v string) (string, error) {
	name, err := PeerName(v)
	if err != nil {
		// A name that cannot be is a target that is not there.
		return "", refuse(pdu.LoginNotFound, "%q: %v", clip(v), err)
	}
	n.p.TargetName = name
	n.targetName = true
	return "", nil
}

func takeInitiatorAlias(n *negotiation, v string) (string, error) {
	n.p.InitiatorAlias = v
	return "", nil
}

func takeSessionType(n *negotiation, v string) (string, error) {
	switch v {
	case "Normal":
		n.p.Discovery = false
	case "Discovery":
		n.p.Discovery = true
	default:
		return "", refuse(pdu.LoginSessionTypeNotSupported, "%q is neither Normal nor Discovery", clip(v))
	}
	n.sessionType = true
	return "", nil
}

func takeAuthMethod(n *negotiation, v string) (string, error) {
	// The machine answers: it knows what the target wants.
	n.auth = strings.Split(v, ",")
	return "", nil
}

func takeMaxRecv(n *negotiation, v string) (string, error) {
	x, err := number(v, 512, pdu.MaxDataSegmentLength)
	if err != nil {
		return valueReject, err
	}
	n.declared = x
	return "", nil
}

// takeFirstBurst takes FirstBurstLength, which must not exceed MaxBurstLength: the
// text is put in an order where MaxBurstLength, InitialR2T and ImmediateData come
// before it.
func takeFirstBurst(n *negotiation, v string) (string, error) {
	if n.p.InitialR2T && !n.p.ImmediateData {
		return valueIrrelevant, nil
	}
	x, err := number(v, 512, pdu.MaxDataSegmentLength)
	if err != nil {
		return valueReject, err
	}
	n.p.FirstBurstLength = min(x, n.cfg.FirstBurstLength, n.p.MaxBurstLength)
	return format(n.p.FirstBurstLength), nil
}

// rank is the place of a key in the order in which keys are judged.
func rank(key string) int {
	switch key {
	case "SessionType", "InitiatorName", "TargetName":
		return 0
	case "FirstBurstLength":
		return 2
	}
	return 1
}

// inOrder puts the keys that decide how others are judged before them; all others
// keep their places.
func inOrder(kvs []pdu.KeyValue) []pdu.KeyValue {
	out := make([]pdu.KeyValue, 0, len(kvs))
	for pass := range 3 {
		for _, kv := range kvs {
			if rank(kv.Key) == pass {
				out = append(out, kv)
			}
		}
	}
	return out
}
