package segments

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"siptraced/cmd/siptraced/internal/disk/faulty"
	"siptraced/cmd/siptraced/internal/journal"
)

// Any call of the disk fails now and then; processes are killed, and machines lose
// power. What was appended and synced is there, once and in order; what was refused is
// not, while the process lives; when the disk works again, so does the log.
func TestRandomFaults(t *testing.T) {
	seeds := uint64(150)
	if long() {
		seeds = 20_000
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			m := &model{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 3)), disk: faulty.New(seed), state: map[int]int{}}
			m.run()
		})
	}
}

// What is known of an entry.
const (
	refused = iota + 1 // never to be seen, as long as the process lives
	unsure             // refused, or lost, by a process that ended: it may be there
	taken
	safe
	trimmed
)

type model struct {
	t    *testing.T
	seed uint64
	rng  *rand.Rand
	disk *faulty.Disk
	r    *rig

	n     int         // entries that were tried
	state map[int]int // of each
	last  uint64      // the number of the last one that was taken
	seqs  map[uint64]int

	damaged uint64 // records, at start
}

func (m *model) run() {
	every := []time.Duration{0, 20 * time.Millisecond}[m.rng.IntN(2)]
	m.seqs = map[uint64]int{}
	m.start(every)
	for range 3 + m.rng.IntN(4) {
		m.faults()
		for range m.rng.IntN(25) {
			m.step()
		}
		m.disk.Heal()
		time.Sleep(10 * time.Second)
		m.works()
		m.check(false)
		switch m.rng.IntN(4) {
		case 0:
			m.r.close()
		case 1:
			m.crash(m.disk.Clone(m.rng.Uint64()), taken)
		case 2:
			m.crash(m.disk.CrashClone(m.rng.Uint64()), safe)
		default:
			continue
		}
		m.start(every)
		m.check(true)
	}
	m.r.close()
}

func (m *model) start(every time.Duration) {
	m.r = start(m.t, m.disk.Start(), "spool", every, journal.Limits{}, func(c *Config) { c.SegmentSize = 16 << 10 })
}

// faults injects some.
func (m *model) faults() {
	for range m.rng.IntN(4) {
		f := faulty.Fault{
			Ops: 1 << m.rng.IntN(12), Path: []string{"", "shard-0", "positions", ".log", ".idx", "tail"}[m.rng.IntN(6)],
			After: m.rng.IntN(10), Times: m.rng.IntN(4), Err: []error{syscall.EIO, syscall.ENOSPC}[m.rng.IntN(2)],
			Partial: m.rng.IntN(2) == 0, Lose: m.rng.IntN(2) == 0,
		}
		if f.Ops == faulty.Read {
			f.Times = 1 + f.Times%2 // longer, and the place is taken for damaged
		}
		m.disk.Inject(f)
	}
}

func (m *model) step() {
	ctx := context.Background()
	switch m.rng.IntN(8) {
	case 0:
		upTo := m.last - min(m.last, uint64(m.rng.IntN(10)))
		_ = m.r.log.Trim(ctx, upTo) // it may fail, and does it then later
		m.trimmed(upTo)
	case 1:
		_ = m.r.engine.Positions().Flush(ctx) // likewise
	case 2:
		time.Sleep(time.Duration(m.rng.IntN(3000)) * time.Millisecond)
		m.synced()
	default:
		m.append(1 + m.rng.IntN(8))
	}
}

func (m *model) append(k int) {
	var entries []*journal.Entry
	for range k {
		m.n++
		entries = append(entries, entry(m.n, sizeOf(m.n)))
	}
	n, _ := m.r.log.Append(context.Background(), entries)
	for i, e := range entries {
		id := m.n - k + 1 + i
		m.state[id] = refused
		if i < n {
			m.state[id], m.last, m.seqs[e.Seq] = taken, e.Seq, id
		}
	}
	m.synced()
}

// synced notes what is safe now.
func (m *model) synced() {
	m.r.log.mu.Lock()
	defer m.r.log.mu.Unlock()
	for seq, id := range m.seqs {
		if seq <= m.r.log.synced.seq && m.state[id] == taken {
			m.state[id] = safe
		}
	}
}

func (m *model) trimmed(upTo uint64) {
	for seq, id := range m.seqs {
		if seq <= upTo {
			m.state[id] = trimmed
			delete(m.seqs, seq)
		}
	}
}

// works appends until an entry is taken, and all is safe.
func (m *model) works() {
	for range 20 {
		m.append(1)
		if m.state[m.n] != refused {
			break
		}
		time.Sleep(time.Second)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.r.log.Sync(ctx); err != nil || m.state[m.n] == refused {
		m.t.Fatalf("seed %d: it does not work again: %v\n%s", m.seed, err, m.r.said)
	}
	m.synced()
}

// crash ends the process; what was at least so sure is there afterwards.
func (m *model) crash(d *faulty.Disk, sure int) {
	_ = m.r.engine.Close(context.Background())
	m.disk = d
	for id, s := range m.state {
		if s < sure {
			m.state[id] = unsure
		} else if s == taken {
			m.state[id] = safe // read back, and synced
		}
	}
}

// check reads the log.
func (m *model) check(again bool) {
	c, _ := m.r.log.Read(context.Background(), 0)
	defer c.Close()
	got := map[int]bool{}
	for before := 0; ; {
		e, err := c.Next(context.Background())
		if errors.Is(err, journal.ErrEnd) {
			break
		}
		if err != nil {
			m.t.Fatalf("seed %d: %v", m.seed, err)
		}
		id := m.r.verify(&e)
		if got[id] || id < before || m.state[id] == refused {
			m.t.Fatalf("seed %d: entry %d behind %d, state %d, seen %v\n%s", m.seed, id, before, m.state[id], got[id], m.r.said)
		}
		got[id], before = true, id
		if again && m.state[id] == unsure {
			m.state[id], m.seqs[e.Seq] = safe, id
		}
		release(&e)
	}
	for id, s := range m.state {
		if s >= taken && s < trimmed && !got[id] {
			m.t.Fatalf("seed %d: entry %d is missing, state %d: %s\n%s", m.seed, id, s, fmt.Sprint(again), m.r.said)
		}
	}
	b := m.r.bounds()
	if again {
		m.last, m.damaged = b.Last, b.DamagedRecords
	}
	if b.DamagedRecords > m.damaged {
		m.t.Fatalf("seed %d: %d records are damaged, %d were at start\n%s", m.seed, b.DamagedRecords, m.damaged, m.r.said)
	}
}
