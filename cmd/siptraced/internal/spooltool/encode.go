package spooltool

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"siptraced/cmd/siptraced/internal/hepmap"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// hepPacket makes the HEP3 packet of a record, in memory that is used again.
type hepPacket struct {
	packet hep.Packet
	buf    []byte
}

// of is valid until the next call. The error wraps errTooLarge.
func (p *hepPacket) of(rec *siptrace.Record) (_ []byte, err error) {
	if rec.Packet != nil {
		// A key is a secret of who sent it.
		p.buf, err = hepmap.AppendForwarded(p.buf[:0], rec.Packet, nil)
	} else {
		hepmap.Fill(&p.packet, rec)
		p.buf, err = p.packet.Append(p.buf[:0])
	}
	if errors.Is(err, hep.ErrTooLarge) {
		err = errTooLarge
	}
	return p.buf, err
}

// hepEncoder writes HEP3 packets one after the other.
type hepEncoder struct {
	out *bufio.Writer
	hepPacket
}

func newHEPEncoder(out io.Writer) *hepEncoder {
	return &hepEncoder{out: bufio.NewWriterSize(out, 1<<16)}
}

func (e *hepEncoder) write(m *message) error {
	packet, err := e.of(&m.rec)
	if err != nil {
		return err
	}
	_, err = e.out.Write(packet)
	return err
}

func (e *hepEncoder) close() error { return e.out.Flush() }

// jsonEncoder writes a line per message.
type jsonEncoder struct {
	out  *bufio.Writer
	text *json.Encoder
	hepPacket
	from, to []byte
}

func newJSONEncoder(out io.Writer) *jsonEncoder {
	b := bufio.NewWriterSize(out, 1<<16)
	e := &jsonEncoder{out: b, text: json.NewEncoder(b)}
	e.text.SetEscapeHTML(false)
	return e
}

// line is a message in JSON. The names are the table's where it has a column. Replay
// needs the last five (package capture): hex has the message as HEP3 with all that
// belongs to it, or, where it is too large for that, as it is.
type line struct {
	Time         time.Time `json:"time"` // of capture
	CallID       string    `json:"callid"`
	Method       string    `json:"method,omitempty"`
	Status       string    `json:"status,omitempty"`
	FromIP       string    `json:"fromip,omitempty"`
	ToIP         string    `json:"toip,omitempty"`
	FromTag      string    `json:"fromtag,omitempty"`
	ToTag        string    `json:"totag,omitempty"`
	Direction    string    `json:"direction,omitempty"`
	Table        string    `json:"table,omitempty"`        // where it is not the configured one
	Users        []string  `json:"users,omitempty"`        // traced_user, one per row
	Sinks        []string  `json:"sinks"`                  // which kinds of sinks take it
	Destinations []string  `json:"destinations,omitempty"` // that rules named
	Spooled      time.Time `json:"spooled"`
	Shard        int       `json:"shard"`
	Batch        uint64    `json:"batch"`
	Msg          string    `json:"msg"` // text: what is no UTF-8 is in hex only

	T         json.Number `json:"t"` // of capture, in seconds since 1970
	Transport string      `json:"transport"`
	Src       string      `json:"src"`
	Dst       string      `json:"dst"`
	Hex       string      `json:"hex"`
}

func (e *jsonEncoder) write(m *message) error {
	rec := &m.rec
	from, to := rec.From.OrUnknown(), rec.To.OrUnknown()
	l := line{
		Time: rec.Time.UTC(), CallID: string(rec.CallID), Method: string(rec.Method), Status: string(rec.Status),
		FromTag: string(rec.FromTag), ToTag: string(rec.ToTag), Direction: rec.Direction, Table: rec.Table,
		Sinks: sinkNames(rec.Sinks), Destinations: rec.Destinations, Spooled: m.taken.UTC(), Shard: m.shard, Batch: m.seq,
		Msg: string(rec.Msg),
		T:   json.Number(fmt.Sprintf("%d.%06d", rec.Time.Unix(), rec.Time.Nanosecond()/1000)), Transport: string(from.Proto), Src: from.Addr.String(), Dst: to.Addr.String(),
	}
	for _, u := range rec.Users {
		l.Users = append(l.Users, string(u))
	}
	if rec.Packet == nil {
		e.from, e.to = rec.From.Append(e.from[:0]), rec.To.Append(e.to[:0])
		l.FromIP, l.ToIP = string(e.from), string(e.to)
	}
	body, err := e.of(rec)
	switch {
	case errors.Is(err, errTooLarge):
		body = rec.Msg
	case err != nil:
		return err
	}
	l.Hex = hex.EncodeToString(body)
	return e.text.Encode(&l)
}

func (e *jsonEncoder) close() error { return e.out.Flush() }

// sinkNames spells a set of sinks.
func sinkNames(s siptrace.Sinks) []string {
	names := []string{}
	for _, n := range []struct {
		sink siptrace.Sinks
		name string
	}{
		{siptrace.ToStore, "database"},
		{siptrace.ToHEP, "hep"},
		{siptrace.ToSIP, "sip"},
		{siptrace.ToListed, "destinations"},
	} {
		if s&n.sink != 0 {
			names = append(names, n.name)
		}
	}
	return names
}
