package pdu

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestParseText(t *testing.T) {
	long := strings.Repeat("v", MaxLongValue)
	for _, tc := range []struct {
		in   string
		want []KeyValue
		err  error
	}{
		{"", nil, nil},
		{"\x00\x00", nil, nil},
		{"A=b\x00", []KeyValue{{"A", "b"}}, nil},
		{"A=\x00B=c=d\x00", []KeyValue{{"A", ""}, {"B", "c=d"}}, nil},
		{"HeaderDigest=CRC32C,None\x00\x00X-org.example.k+@_-.9=1\x00\x00\x00", []KeyValue{{"HeaderDigest", "CRC32C,None"}, {"X-org.example.k+@_-.9", "1"}}, nil},
		{"X#NodeArchitecture=a\x00", []KeyValue{{"X#NodeArchitecture", "a"}}, nil},
		{strings.Repeat("K", MaxKey) + "=1\x00", []KeyValue{{strings.Repeat("K", MaxKey), "1"}}, nil},
		{"A=" + long + "\x00", []KeyValue{{"A", long}}, nil},
		{"A=b", nil, ErrNoDelimiter},
		{"A=b\x00C", nil, ErrNoDelimiter},
		{"A\x00", nil, ErrNoEquals},
		{"=b\x00", nil, ErrBadKey},
		{"iSCSIProtocolLevel=1\x00", []KeyValue{{"iSCSIProtocolLevel", "1"}}, nil},
		{"-a=b\x00", nil, ErrBadKey},
		{"@a=b\x00", nil, ErrBadKey},
		{"[a=b\x00", nil, ErrBadKey},
		{"1=b\x00", nil, ErrBadKey},
		{"A b=c\x00", nil, ErrBadKey},
		{"A\xff=c\x00", nil, ErrBadKey},
		{strings.Repeat("K", MaxKey+1) + "=1\x00", nil, ErrBadKey},
		{"A=" + long + "v\x00", nil, ErrValueTooLong},
		{strings.Repeat("A=\x00", MaxKeys+1), nil, ErrTooManyKeys},
		{strings.Repeat("\x00", MaxText+1), nil, ErrTextTooLong},
	} {
		got, err := ParseText([]byte(tc.in))
		if !errors.Is(err, tc.err) || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%.60q: %v %v, want %v %v", tc.in, got, err, tc.want, tc.err)
		}
	}
	if n, err := ParseText([]byte(strings.Repeat("A=\x00", MaxKeys))); err != nil || len(n) != MaxKeys {
		t.Error(len(n), err)
	}
	kv := KeyValue{"AuthMethod", "CHAP,None"}
	if kv.String() != "AuthMethod=CHAP,None" || !reflect.DeepEqual(kv.List(), []string{"CHAP", "None"}) {
		t.Error(kv, kv.List())
	}
	if b := AppendTexts([]byte("x"), kv, KeyValue{"A", ""}); string(b) != "xAuthMethod=CHAP,None\x00A=\x00" {
		t.Errorf("%q", b)
	}
	// The strings outlive the buffer.
	b := []byte("A=b\x00")
	kvs, _ := ParseText(b)
	copy(b, "XXXX")
	if kvs[0] != (KeyValue{"A", "b"}) {
		t.Error("the strings are not copies")
	}
}

func TestValues(t *testing.T) {
	for in, want := range map[string]bool{"Yes": true, "No": false} {
		if b, err := ParseBool(in); err != nil || b != want || FormatBool(b) != in {
			t.Errorf("%s: %v %v", in, b, err)
		}
	}
	for _, in := range []string{"", "yes", "YES", "1", "No ", "Yes,No"} {
		if _, err := ParseBool(in); err == nil {
			t.Errorf("%q is a boolean", in)
		}
	}
	for in, want := range map[string]uint64{
		"0": 0, "7": 7, "262144": 262144, "18446744073709551615": math.MaxUint64,
		"0x0": 0, "0x10": 16, "0XfF": 255, "0x0000000000000000000000001": 1, "0xffffffffffffffff": math.MaxUint64,
	} {
		if v, err := ParseNumber(in); err != nil || v != want {
			t.Errorf("%s: %d %v", in, v, err)
		}
	}
	for _, in := range []string{"", "-1", "+1", "01", "00", " 1", "1 ", "1_000", "0x", "0xg", "0x-1", "0x_1", "0b1", "1.0", "18446744073709551616", "0x10000000000000000"} {
		if v, err := ParseNumber(in); err == nil {
			t.Errorf("%q is number %d", in, v)
		}
	}
	if l, h, err := ParseRange("512~0x1000"); err != nil || l != 512 || h != 4096 {
		t.Error(l, h, err)
	}
	for _, in := range []string{"", "1", "~", "1~", "~1", "2~1", "1~2~3", "a~b"} {
		if _, _, err := ParseRange(in); err == nil {
			t.Errorf("%q is a range", in)
		}
	}
	for _, tc := range []struct {
		in   string
		max  int
		want []byte
	}{
		{"0x00ff", 2, []byte{0, 255}},
		{"0xF", 1, []byte{15}},
		{"0x123", 2, []byte{1, 0x23}},
		{"0bAP8=", 2, []byte{0, 255}},
		{"0BaGVsbG8=", 5, []byte("hello")},
		{"0", 1, []byte{0}},
		{"256", 2, []byte{1, 0}},
		{"18446744073709551615", 8, bytes.Repeat([]byte{255}, 8)},
	} {
		if b, err := ParseBinary(tc.in, tc.max); err != nil || !bytes.Equal(b, tc.want) {
			t.Errorf("%s: %x %v", tc.in, b, err)
		}
		if _, err := ParseBinary(tc.in, len(tc.want)-1); !errors.Is(err, ErrValueTooLong) {
			t.Errorf("%s in %d bytes: %v", tc.in, len(tc.want)-1, err)
		}
	}
	for _, in := range []string{"", "0x", "0xzz", "0b", "0b!", "0bAP8", "0bAP9=", "0bAP\n8=", "hello", "-1", "18446744073709551616"} {
		if b, err := ParseBinary(in, 100); err == nil {
			t.Errorf("%q is %x", in, b)
		}
	}
	if _, err := ParseBinary("0x"+strings.Repeat("00", 2000), 1<<20); !errors.Is(err, ErrValueTooLong) {
		t.Error(err)
	}
	if s := FormatBinary([]byte{1, 0xab}); s != "0x01ab" {
		t.Error(s)
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("InitiatorName=iqn.1994-05.com.redhat:1\x00SessionType=Normal\x00HeaderDigest=CRC32C,None\x00"))
	f.Add([]byte(strings.Repeat("A=\x00", MaxKeys+1)))
	f.Add([]byte("MaxBurstLength=0x1000\x00OFMarkInt=1~65535\x00CHAP_C=0bAAAA\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kvs, err := ParseText(b)
		if err != nil {
			if kvs != nil {
				t.Fatal("pairs and an error")
			}
			return
		}
		if len(kvs) > MaxKeys {
			t.Fatal("too many")
		}
		again, err := ParseText(AppendTexts(nil, kvs...))
		if err != nil || !reflect.DeepEqual(kvs, again) {
			t.Fatalf("%v became %v, %v", kvs, again, err)
		}
		for _, kv := range kvs {
			ParseBool(kv.Value)
			ParseRange(kv.Value)
			if v, err := ParseNumber(kv.Value); err == nil {
				// Leading zeros make it longer than the number's 8 bytes.
				if _, err := ParseBinary(kv.Value, len(kv.Value)); err != nil && len(kv.Value) < 20 {
					t.Fatalf("%q is the number %d but no binary value: %v", kv.Value, v, err)
				}
			}
			if b, err := ParseBinary(kv.Value, 1024); err == nil {
				if c, err := ParseBinary(FormatBinary(b), 1024); err != nil || !bytes.Equal(b, c) {
					t.Fatalf("%q: %x became %x, %v", kv.Value, b, c, err)
				}
			}
		}
	})
}
