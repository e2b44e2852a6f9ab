package capture

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"time"

	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/rejects"
	"siptraced/hep"
)

// Item is what a file has at one place. One of the last three says what it is.
type Item struct {
	Number int // of the line, of the frame, of the packet in a stream; from 1
	// Packet is a datagram, or a message of a stream; it is valid during the call.
	Packet *ingest.Packet
	// Refused is a row of the reject file.
	Refused *rejects.Line
	// Problem: something is there, and it can't be used.
	Problem error
}

// ErrOther is wrapped by the Problem of other traffic than SIP and HEP; ErrEmpty is
// the answer of Read to a file without any bytes.
var (
	ErrOther = errors.New("neither SIP nor HEP")
	ErrEmpty = errors.New("the file is empty")
)

// Read hands every item on, until handle returns an error.
func Read(in io.Reader, handle func(Item) error) error {
	b := bufio.NewReaderSize(in, 1<<16)
	head, err := b.Peek(4)
	switch {
	case errors.Is(err, io.EOF) && len(bytes.TrimSpace(head)) == 0:
		return ErrEmpty
	case err != nil:
		return err
	case bytes.HasPrefix(bytes.TrimLeft(head, " \r\n\t"), []byte("{")):
		return readLines(b, handle)
	case hep.Detect(head) == 3:
		return readStream(b, handle)
	}
	return readPcap(b, head, handle)
}

// line is one packet as a line of JSON, or a line of the reject file.
type line struct {
	T         float64
	Transport string
	Src, Dst  string
	Hex       string
	rejects.Line
}

// maxLine bounds a line in bytes: the largest record in base64 and more.
const maxLine = 8 << 20

func readLines(in io.Reader, handle func(Item) error) error {
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, maxLine)
	for n := 1; sc.Scan(); n++ {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		item := Item{Number: n}
		item.Packet, item.Refused, item.Problem = readLine(sc.Bytes())
		if err := handle(item); err != nil {
			return err
		}
	}
	return sc.Err()
}

func readLine(text []byte) (*ingest.Packet, *rejects.Line, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, nil, err
	}
	if l.Line.Packet != nil {
		if l.Table != "" {
			return nil, &l.Line, nil
		}
		p := &ingest.Packet{Time: l.Time, Data: l.Line.Packet, Net: "udp"}
		p.Source, _ = netip.ParseAddrPort(l.Source)
		return p, nil, nil
	}
	data, err := hex.DecodeString(l.Hex)
	if err == nil && len(data) == 0 {
		err = errors.New("the line has neither hex nor packet")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("hex: %w", err)
	}
	p := &ingest.Packet{Time: time.UnixMicro(int64(math.Round(l.T * 1e6))), Net: l.Transport, Data: data}
	// Without addresses a packet is still read: HEP brings its own.
	p.Source, _ = netip.ParseAddrPort(l.Src)
	p.Local, _ = netip.ParseAddrPort(l.Dst)
	return p, nil, nil
}

// readStream reads HEP3 packets that follow each other.
func readStream(in io.Reader, handle func(Item) error) error {
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, 2*hep.MaxPacket)
	sc.Split(func(b []byte, end bool) (advance int, packet []byte, err error) {
		skip, n, err := ingest.Split(b)
		if err != nil || n > 0 {
			return skip + n, b[skip : skip+n], err
		}
		if end && len(b) > skip {
			err = fmt.Errorf("the stream ends within a packet, of which it has %d bytes", len(b)-skip)
		}
		return skip, nil, err
	})
	for n := 1; sc.Scan(); n++ {
		if err := handle(Item{Number: n, Packet: &ingest.Packet{Data: sc.Bytes(), Net: "tcp"}}); err != nil {
			return err
		}
	}
	return sc.Err()
}
