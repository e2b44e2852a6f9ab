package dbschema

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"siptraced/compat/siptrace"
)

// latin9ish is a character set with 'é' at 0xE9, '€' at 0xA4 and nothing else
// beyond ASCII.
func latin9ish() *charset {
	c := newCharset(1)
	c.upper[0x69], c.upper[0x24] = 'é', '€'
	c.add('é')
	c.add('€')
	return c
}

func TestValue(t *testing.T) {
	tests := []struct {
		name               string
		slot               slot
		in, want           string
		cut, bytewise, nul uint64
	}{
		{name: "ascii", slot: slot{enc: encUnicode, chars: 5}, in: "abcde", want: "abcde"},
		{name: "empty", slot: slot{enc: encUnicode, chars: 5}},
		{name: "ascii cut", slot: slot{enc: encUnicode, chars: 5}, in: "abcdef", want: "abcde", cut: 1},
		{name: "width is in characters", slot: slot{enc: encUnicode, chars: 3}, in: "äöü", want: "äöü"},
		{name: "cut in characters", slot: slot{enc: encUnicode, chars: 2}, in: "äöü", want: "äö", cut: 1},
		{name: "limit in bytes", slot: slot{enc: encUnicode, bytes: 5}, in: "äöü", want: "äö", cut: 1},
		{name: "limit in bytes, cut before", slot: slot{enc: encUnicode, bytes: 3}, in: "a😀b", want: "a", cut: 1},
		{name: "both limits", slot: slot{enc: encUnicode, chars: 2, bytes: 3}, in: "äöü", want: "ä", cut: 1},
		{name: "no limit", slot: slot{enc: encUnicode}, in: strings.Repeat("ä", 9999), want: strings.Repeat("ä", 9999)},
		{name: "not UTF-8", slot: slot{enc: encUnicode, chars: 9}, in: "f\xfcr\xff", want: "für\u00ff", bytewise: 1},
		{name: "not UTF-8 as a whole", slot: slot{enc: encUnicode, chars: 9}, in: "ü\xfc", want: "Ã¼ü", bytewise: 1},
		{name: "not UTF-8 and cut", slot: slot{enc: encUnicode, chars: 2}, in: "\xfc\xfc\xfc", want: "üü", bytewise: 1, cut: 1},
		{name: "surrogate half", slot: slot{enc: encUnicode, chars: 9}, in: "\xed\xa0\x80", want: "í\u00a0\u0080", bytewise: 1},
		{name: "overlong", slot: slot{enc: encUnicode, chars: 9}, in: "\xc0\x80", want: "À\u0080", bytewise: 1},
		{name: "four bytes", slot: slot{enc: encUnicode, chars: 1}, in: "😀", want: "😀"},
		{name: "NUL kept", slot: slot{enc: encUnicode, chars: 9}, in: "a\x00b", want: "a\x00b"},
		{name: "NUL replaced", slot: slot{enc: encUnicode, chars: 9, nul: true}, in: "a\x00b\x00", want: "a␀b␀", nul: 1},
		{name: "NUL replaced among text", slot: slot{enc: encUnicode, chars: 9, nul: true}, in: "ä\x00😀", want: "ä␀😀", nul: 1},
		{name: "NUL and not UTF-8", slot: slot{enc: encUnicode, chars: 9, nul: true}, in: "\xe4\x00", want: "ä␀", nul: 1, bytewise: 1},

		{name: "BMP", slot: slot{enc: encBMP, chars: 9}, in: "ä€中", want: "ä€中"},
		{name: "above the BMP", slot: slot{enc: encBMP, chars: 9}, in: "ä😀中", want: "ä\u00f0\u009f\u0098\u0080中", bytewise: 1},
		{name: "BMP, not UTF-8", slot: slot{enc: encBMP, chars: 9}, in: "ä\xff", want: "Ã¤ÿ", bytewise: 1},

		{name: "set has it", slot: slot{enc: encCharset, charset: latin9ish(), chars: 9}, in: "é€", want: "é€"},
		{name: "set lacks a character", slot: slot{enc: encCharset, charset: latin9ish(), chars: 9}, in: "éü", want: "????", bytewise: 1},
		{name: "set, high character", slot: slot{enc: encCharset, charset: latin9ish(), chars: 9}, in: "😀", want: "????", bytewise: 1},
		{name: "set, bytes", slot: slot{enc: encCharset, charset: latin9ish(), chars: 9}, in: "é\xe9\xa4\x80", want: "??é€?", bytewise: 1},
		{name: "set, U+FFFD is no error in itself", slot: slot{enc: encCharset, charset: latin9ish(), chars: 9}, in: "\ufffd", want: "???", bytewise: 1},

		{name: "set, NUL replaced", slot: slot{enc: encCharset, charset: latin9ish(), chars: 9, nul: true}, in: "é\x00", want: "é?", nul: 1},

		{name: "bytes", slot: slot{enc: encBytes, chars: 4}, in: "\xff\x00ä", want: "\xff\x00ä"},
		{name: "bytes cut", slot: slot{enc: encBytes, chars: 3}, in: "\xff\x00ä", want: "\xff\x00\xc3", cut: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := Encoder{plan: &Plan{}}
			tt.slot.field = fieldMsg
			if got := string(e.value(&tt.slot, []byte(tt.in))); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			got := [3]uint64{e.Counts.Cut[fieldMsg], e.Counts.Bytewise[fieldMsg], e.Counts.NUL[fieldMsg]}
			if want := [3]uint64{tt.cut, tt.bytewise, tt.nul}; got != want {
				t.Errorf("cut, bytewise, NUL: got %v, want %v", got, want)
			}
		})
	}
}

func TestASCII(t *testing.T) {
	for n := range 20 {
		b := bytes.Repeat([]byte{0x7f}, n)
		if !ascii(b) {
			t.Errorf("%q is ASCII", b)
		}
		for i := range n {
			b[i] = 0x80
			if ascii(b) {
				t.Errorf("%q is not ASCII", b)
			}
			b[i] = 0
		}
	}
}

func TestPart(t *testing.T) {
	tests := []struct{ in, proto, host, port string }{
		{"udp:192.0.2.1:5060", "udp", "192.0.2.1", "5060"},
		{"tls:[2001:db8::1]:5061", "tls", "2001:db8::1", "5061"},
		{"udp:::1:5060", "udp", "::1", "5060"},
		{"hello", "", "hello", "0"},
		{"192.0.2.1:5060", "", "192.0.2.1:5060", "0"},
		{"udp:192.0.2.1:sip", "udp", "192.0.2.1", "0"},
		{"udp:192.0.2.1:", "udp", "192.0.2.1", "0"},
		{"udp:192.0.2.1:65535", "udp", "192.0.2.1", "65535"},
		{"udp:192.0.2.1:65536", "udp", "192.0.2.1", "0"},
		{"udp:1.2.3.4:99999999999999999999999", "udp", "1.2.3.4", "0"},
		{"", "", "", "0"},
		{"udp:192.0.2.1:65535", "udp", "192.0.2.1", "65535"},
		{"udp:192.0.2.1:65536", "udp", "192.0.2.1", "0"},
		{"udp:1.2.3.4:99999999999", "udp", "1.2.3.4", "0"},
		{"udp:1.2.3.4:" + strings.Repeat("9", 40), "udp", "1.2.3.4", "0"},
	}
	for _, tt := range tests {
		b, e := []byte(tt.in), Encoder{}
		var got [3]string
		for i := range got {
			got[i] = string(e.part(fieldFromProto+Field(i), b, Field(i)))
		}
		if want := [3]string{tt.proto, tt.host, tt.port}; got != want {
			t.Errorf("%q: got %q, want %q", tt.in, got, want)
		}
	}
}

// A number that its column can't hold becomes 0, and a time the nearest one.
func TestMadeFit(t *testing.T) {
	tests := []struct {
		in, want string
		most     int64
		cut      uint64
	}{
		{"200", "200", 255, 0},
		{"255", "255", 255, 0},
		{"256", "0", 255, 1},
		{"", "0", 255, 0},
		{"000255", "000255", 255, 0},
		{"-1", "0", 255, 1},
		{"OK", "0", 255, 1},
		{"9223372036854775807", "0", math.MaxInt64, 1},
		{"999999999999999999", "999999999999999999", math.MaxInt64, 0},
	}
	for _, tt := range tests {
		e := Encoder{plan: &Plan{}}
		got := string(e.value(&slot{field: fieldStatus, most: tt.most}, []byte(tt.in)))
		if got != tt.want || e.Counts.Cut[fieldStatus] != tt.cut {
			t.Errorf("%q to %d: got %q, cut %d, want %q, %d", tt.in, tt.most, got, e.Counts.Cut[fieldStatus], tt.want, tt.cut)
		}
	}
	tab := fullTable(MySQL)
	tab.Column(fieldTime).Type = "timestamp"
	e := mustPlan(t, tab).NewEncoder(time.UTC)
	rec := record()
	for in, want := range map[int64]string{0: "1970-01-02 00:00:01", 1700000000: "2023-11-14 22:13:20", math.MaxUint32: "2038-01-18 03:14:07"} {
		rec.Time = time.Unix(in, 0)
		if got := e.AppendArgs(nil, rec, nil)[0]; got != want {
			t.Errorf("%d: got %v, want %s", in, got, want)
		}
	}
	want := map[string]uint64{"cut.time_stamp": 2}
	if got := maps.Collect(e.Counts.All()); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// Two plans are equal where they write in the same way.
func TestPlanEqual(t *testing.T) {
	change := []func(*Table){
		func(*Table) {},
		func(t *Table) { t.Column(fieldMethod).Width = 3 },
		func(t *Table) { t.JulianDay = true },
		func(t *Table) {
			t.Column(fieldCallID).Charset = "latin1"
			t.Column(fieldCallID).charset = newCharset(1)
		},
		func(t *Table) { t.Column(fieldCallID).Charset = "latin1"; t.Column(fieldCallID).charset = latin9ish() },
		func(t *Table) { t.Column(fieldStatus).Type = "int" },
	}
	for i, a := range change {
		for j, b := range change {
			x, y := fullTable(MySQL), fullTable(MySQL)
			a(x)
			b(y)
			if got := mustPlan(t, x).Equal(mustPlan(t, y)); got != (i == j) {
				t.Errorf("%d and %d: equal is %v", i, j, got)
			}
		}
	}
}

// fullTable is a table of the current form that no database has made.
func fullTable(d Dialect) *Table {
	t := &Table{Dialect: d, Name: "sip_trace", Encoding: "UTF8", want: siptrace.DefaultColumns()}
	t.name = tableName{table: t.Name, quoted: t.Name}
	for f, c := range layout {
		col := Column{Name: Field(f).String(), Width: c.width}
		if d == MySQL && c.kind >= kindText {
			col.Charset, col.Collation = "utf8mb4", "utf8mb4_general_ci"
		}
		t.Columns = append(t.Columns, col)
	}
	t.assign()
	t.Form = t.form()
	return t
}

func TestAppendArgs(t *testing.T) {
	newYork, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []Dialect{MySQL, PostgreSQL, SQLite} {
		enc := mustPlan(t, fullTable(d)).NewEncoder(newYork)
		rec := record()
		want := []any{
			"2026-11-21 05:47:11", int64(447093), "a84b4c76e66710@pc33.example.org", "sip:alice@example.org",
			"INVITE sip:bob@example.org SIP/2.0\r\n\r\n", "INVITE", "",
			"udp:192.0.2.7:5070", "tls:[2001:db8::1]:5061", "1928301774", "", "in",
		}
		if got := enc.AppendArgs(nil, rec, []byte("sip:alice@example.org")); !reflect.DeepEqual(got, want) {
			t.Errorf("%v:\n got %#v\nwant %#v", d, got, want)
		}
		// Another second, and summer.
		rec.Time = time.Date(2026, 7, 1, 0, 0, 0, 999999999, time.UTC)
		rec.From, rec.Status, rec.Direction = siptrace.Endpoint{}, []byte("200"), "out"
		want = []any{"kept", "2026-06-30 20:00:00", int64(999999)}
		got := enc.AppendArgs([]any{"kept"}, rec, nil)
		if !reflect.DeepEqual(got[:3], want) {
			t.Errorf("%v: got %#v, want %#v", d, got[:3], want)
		}
		want = []any{"200", "any:255.255.255.255:5060", "tls:[2001:db8::1]:5061", "1928301774", "", "out"}
		if !reflect.DeepEqual(got[7:], want) {
			t.Errorf("%v: got %#v, want %#v", d, got[7:], want)
		}
		enc.Reset()
	}
}

func TestJulianDay(t *testing.T) {
	tab := fullTable(SQLite)
	tab.JulianDay = true
	enc := mustPlan(t, tab).NewEncoder(time.FixedZone("", 3600))
	rec := record()
	rec.Time = time.Unix(1795258031, 447397000)
	// What Kamailio 5.6.3 stored for that second, whatever its time zone.
	if got, want := enc.AppendArgs(nil, rec, nil)[0], 2461365.949427083; fmt.Sprintf("%.9f", got) != fmt.Sprintf("%.9f", want) {
		t.Errorf("got %.9f, want %.9f", got, want)
	}
}

func TestInsertText(t *testing.T) {
	tab := fullTable(PostgreSQL)
	tab.Columns = tab.Columns[:3]
	tab.fields = [numFields]int{1, 2, 3}
	p := &Plan{dialect: postgresDialect{}, table: `"t"`}
	for f := range fieldTracedUser {
		p.slots = append(p.slots, slot{field: f, name: tab.Column(f).Name})
	}
	if got, want := p.Insert(2), `INSERT INTO "t" ("time_stamp", "time_us", "callid") VALUES ($1,$2,$3), ($4,$5,$6)`; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	p.dialect, p.table = mysqlDialect{}, "`t`"
	if got, want := p.Insert(1), "INSERT INTO `t` (`time_stamp`, `time_us`, `callid`) VALUES (?,?,?)"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got, want := p.MaxRows(), 21845; got != want {
		t.Errorf("MaxRows: got %d, want %d", got, want)
	}
}

func TestPlanError(t *testing.T) {
	tab := fullTable(MySQL)
	tab.fields[fieldMsg], tab.fields[fieldToIP] = 0, 0
	tab.Columns = append(tab.Columns, Column{Name: "tenant"}, Column{Name: "node", Nullable: true})
	_, err := NewPlan(tab)
	want := "dbschema: sip_trace can't be filled: no column msg, toip; nothing known to put into msg, toip, tenant"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func benchmarkRecord() *siptrace.Record {
	rec := record()
	rec.Msg = bytes.Repeat([]byte("Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n"), 20)
	return rec
}

func BenchmarkAppendArgs(b *testing.B) {
	latin1 := newCharset(1)
	for i := range latin1.upper {
		latin1.upper[i] = rune(0x80 + i)
		latin1.add(rune(0x80 + i))
	}
	for _, bb := range []struct {
		name string
		slot slot
		msg  string
	}{
		{"ascii", slot{enc: encUnicode}, ""},
		{"utf8", slot{enc: encUnicode}, "Grüße 😀"},
		{"invalid", slot{enc: encUnicode}, "Gr\xfc\xdfe"},
		{"latin1 column", slot{enc: encCharset, charset: latin1}, "Grüße"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			p, err := NewPlan(fullTable(MySQL))
			if err != nil {
				b.Fatal(err)
			}
			bb.slot.field = fieldMsg
			p.slots[fieldMsg] = bb.slot
			enc := p.NewEncoder(time.UTC)
			rec := benchmarkRecord()
			rec.Msg = append(rec.Msg, bb.msg...)
			b.SetBytes(int64(len(rec.Msg)))
			b.ReportAllocs()
			var args []any
			for b.Loop() {
				args = enc.AppendArgs(args[:0], rec, nil)
				enc.Reset()
			}
		})
	}
}
