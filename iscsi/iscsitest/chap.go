package iscsitest

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// CHAP says how a login proves who it is (RFC 7143 §12.1.3), and what it asks of the
// target.
type CHAP struct {
	User, Secret string
	// Target and TargetSecret are what the target has to prove; TargetSecret
	// empty: nothing (one-way CHAP).
	Target, TargetSecret string
	// Algorithms is CHAP_A; empty: "8,7,6,5".
	Algorithms string
	// Methods is AuthMethod; empty: "CHAP".
	Methods string
	// Base64 sends binary values in base64 instead of hexadecimal.
	Base64 bool
	// Edit changes what is sent: step 0 is AuthMethod, 1 CHAP_A, 2 the proof.
	// got are the keys of the target so far.
	Edit func(step int, kvs []pdu.KeyValue, got map[string]string) []pdu.KeyValue
}

// CHAPResponse is the hash that proves secret, nil for an unknown algorithm.
func CHAPResponse(algorithm string, id byte, secret string, challenge []byte) []byte {
	b := append(append([]byte{id}, secret...), challenge...)
	switch algorithm {
	case "5":
		h := md5.Sum(b)
		return h[:]
	case "6":
		h := sha1.Sum(b)
		return h[:]
	case "7":
		h := sha256.Sum256(b)
		return h[:]
	case "8":
		h := sha3.Sum256(b)
		return h[:]
	}
	return nil
}

func (x *CHAP) binary(b []byte) string {
	if x.Base64 {
		return "0b" + base64.StdEncoding.EncodeToString(b)
	}
	return pdu.FormatBinary(b)
}

// authenticate runs the security stage of a login, from the first request on.
func (c *Conn) authenticate(l *Login, itt uint32) error {
	x := l.CHAP
	edit := func(step int, kvs ...pdu.KeyValue) []byte {
		if x.Edit != nil {
			kvs = x.Edit(step, kvs, c.Keys)
		}
		return pdu.AppendTexts(nil, kvs...)
	}
	or := func(v, d string) string {
		if v == "" {
			return d
		}
		return v
	}
	const stage = pdu.SecurityNegotiation
	first := append(l.names(), pdu.KeyValue{Key: "AuthMethod", Value: or(x.Methods, "CHAP")})
	r, err := c.exchange(l, l.Request(c, itt, stage, stage, edit(0, first...)), nil)
	if err != nil {
		return err
	}
	switch m := c.Keys["AuthMethod"]; m {
	case "CHAP":
	case "None":
		if r, err = c.exchange(l, l.Request(c, itt, stage, pdu.OperationalNegotiation, nil), nil); err != nil {
			return err
		}
		return leaves(r)
	default:
		return wrong("AuthMethod=%s", m)
	}

	offer := or(x.Algorithms, "8,7,6,5")
	if _, err = c.exchange(l, l.Request(c, itt, stage, stage, edit(1, pdu.KeyValue{Key: "CHAP_A", Value: offer})), nil); err != nil {
		return err
	}
	alg := c.Keys["CHAP_A"]
	if !strings.Contains(","+offer+",", ","+alg+",") {
		return wrong("CHAP_A=%s, offered %s", alg, offer)
	}
	id, err := strconv.ParseUint(c.Keys["CHAP_I"], 10, 8)
	if err != nil {
		return wrong("CHAP_I=%s", c.Keys["CHAP_I"])
	}
	challenge, err := pdu.ParseBinary(c.Keys["CHAP_C"], 1024)
	if err != nil || len(challenge) < 16 {
		return wrong("CHAP_C=%s", c.Keys["CHAP_C"])
	}

	proof := []pdu.KeyValue{
		{Key: "CHAP_N", Value: x.User},
		{Key: "CHAP_R", Value: x.binary(CHAPResponse(alg, byte(id), x.Secret, challenge))},
	}
	var ours [25]byte
	if x.TargetSecret != "" {
		_, _ = rand.Read(ours[:])
		proof = append(proof,
			pdu.KeyValue{Key: "CHAP_I", Value: strconv.Itoa(int(ours[0]))},
			pdu.KeyValue{Key: "CHAP_C", Value: x.binary(ours[1:])})
	}
	delete(c.Keys, "CHAP_N")
	delete(c.Keys, "CHAP_R")
	if r, err = c.exchange(l, l.Request(c, itt, stage, pdu.OperationalNegotiation, edit(2, proof...)), nil); err != nil {
		return err
	}
	if err := leaves(r); err != nil {
		return err
	}
	if x.TargetSecret == "" {
		if _, ok := c.Keys["CHAP_R"]; ok {
			return wrong("CHAP_R that nobody asked for")
		}
		return nil
	}
	got, err := pdu.ParseBinary(c.Keys["CHAP_R"], 1024)
	if err != nil || !bytes.Equal(got, CHAPResponse(alg, ours[0], x.TargetSecret, ours[1:])) {
		return fmt.Errorf("the target has not proved who it is")
	}
	if x.Target != "" && c.Keys["CHAP_N"] != x.Target {
		return fmt.Errorf("the target calls itself %q, not %q", c.Keys["CHAP_N"], x.Target)
	}
	return nil
}

// leaves checks that a response leads to the operational stage.
func leaves(r *PDU) error {
	if !r.Transit() || r.NSG() != pdu.OperationalNegotiation {
		return wrong("no way out of the security stage: T %v, NSG %v", r.Transit(), r.NSG())
	}
	return nil
}
