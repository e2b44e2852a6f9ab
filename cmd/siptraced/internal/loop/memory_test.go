package loop

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"siptraced/cmd/siptraced/internal/ingest"
)

func key(m *memory, i int) uint64 { return m.hash(binary.BigEndian.AppendUint64(nil, uint64(i))) }

// The last texts are remembered, and memory is bounded.
func TestMemoryIsBounded(t *testing.T) {
	m := newMemory()
	const texts, last = 2 * slots, slots / 4
	for i := range texts {
		m.add(key(m, i), [...]uint64{pathUnit, bareUnit}[i%2], 1)
	}
	lost, wrong := 0, 0
	for i := texts - last; i < texts; i++ {
		if !m.has(key(m, i)) {
			lost++
		}
	}
	for i := range last {
		if m.has(key(m, texts+i)) {
			wrong++
		}
	}
	if lost > last/500 || wrong > 0 {
		t.Errorf("%d of %d forgotten, %d known that never were", lost, last, wrong)
	}
	if m.has(key(m, 0)) {
		t.Error("the first text is still remembered")
	}
}

// Copies are counted, those without a path apart.
func TestMemoryCounts(t *testing.T) {
	m := newMemory()
	k := key(m, 1)
	for range 300 {
		m.add(k, bareUnit, 1)
	}
	m.add(k, pathUnit, 1)
	for i := range 255 {
		if !m.take(k, bareUnit) {
			t.Fatalf("copy %d is not known", i)
		}
	}
	if m.take(k, bareUnit) || !m.has(k) || !m.take(k, pathUnit) || m.take(k, pathUnit) || m.has(k) {
		t.Error("want one copy with a path to be left")
	}
}

// Whoever adds and takes at once loses none.
func TestMemoryRace(t *testing.T) {
	m := newMemory()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 5000 {
				m.add(key(m, i), bareUnit, 1)
			}
		})
	}
	all.Wait()
	for range 4 {
		all.Go(func() {
			for i := range 5000 {
				if !m.take(key(m, i), bareUnit) {
					t.Errorf("copy of %d is gone", i)
					return
				}
			}
		})
	}
	all.Wait()
	for i := range 5000 {
		if m.has(key(m, i)) {
			t.Fatalf("a copy of %d is left", i)
		}
	}
}

// Texts that differ in one byte, or in their length, differ in their hash.
func TestHash(t *testing.T) {
	m, seen := newMemory(), map[uint64]string{}
	text := bytes.Repeat([]byte{0}, 200)
	note := func(what string, b []byte) {
		h := m.hash(b)
		if before, ok := seen[h]; ok {
			t.Errorf("%s and %s have one hash", what, before)
		}
		seen[h] = what
	}
	for n := range text {
		note(fmt.Sprintf("%d bytes", n), text[:n])
		b := bytes.Clone(text)
		b[n] = 1
		note(fmt.Sprintf("byte %d", n), b)
	}
}

// A damaged file is refused and read no further.
func TestDamagedFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	m := newMemory()
	m.add(key(m, 1), bareUnit, 1)
	if err := m.save(file); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		flipped := bytes.Clone(whole)
		flipped[n] ^= 1
		for _, b := range [][]byte{whole[:n], flipped} {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if newMemory().load(file) == nil || NewStreams().Load(file) == nil {
				t.Fatalf("damage at byte %d is not noticed", n)
			}
		}
	}
}

func FuzzStreamsFile(f *testing.F) {
	s := NewStreams()
	s.Repeated(AppendOrigin(nil, 1, 2))
	f.Add(s.snapshot()[len(streamsMagic):])
	file := filepath.Join(f.TempDir(), "file")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := writeFile(file, append([]byte(streamsMagic), b...)); err != nil {
			t.Fatal(err)
		}
		s := NewStreams()
		if s.Load(file) != nil {
			return
		}
		for len(b) >= 8 {
			s.Repeated(AppendOrigin(nil, binary.BigEndian.Uint64(b), 7))
			s.Refused(AppendOrigin(nil, binary.BigEndian.Uint64(b), 7))
			b = b[8:]
		}
	})
}

// Senders come and go, and are forgotten.
func TestPeersAreBounded(t *testing.T) {
	d := &Detector{peers: map[netip.AddrPort]*peer{}, wake: make(chan struct{}, 1), sent: newMemory(), laps: newLaps()}
	d.Sent([]byte("text"), false)
	at := time.Unix(1e9, 0)
	for i := range 3 * maxPeers {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, byte(i >> 16), byte(i >> 8)}), uint16(i))
		in := &ingest.Packet{Data: []byte("text"), Time: at.Add(time.Duration(i) * time.Second), Source: from, Ask: func(netip.AddrPort, []byte) error { return nil }}
		d.Check(in, in.Data, nil)
		if i%100 == 0 {
			d.question(in.Time, true)
		}
		d.release(func(*ingest.Packet) {})
	}
	d.question(at, true)
	d.release(func(*ingest.Packet) {})
	if len(d.peers) > maxPeers || d.parked != 0 || d.bytes != 0 || d.parking.Load() != 0 {
		t.Errorf("%d senders, %d packets and %d bytes parked, %d asked", len(d.peers), d.parked, d.bytes, d.parking.Load())
	}
}
