package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"siptraced/compat/siptrace"
)

// ErrClosed is the answer to Put after Close or Abort.
var ErrClosed = fmt.Errorf("spool: %w", fs.ErrClosed)

const (
	streamPrefix = "SIPTRACED_"
	subjectRoot  = "siptraced.trace."
	positionsKV  = "siptraced_positions"
	// headerRecords says how many records a batch holds, and headerTotal how many
	// the stream took with it: what lies between two totals can be counted
	// without reading it.
	headerRecords = "Records"
	headerTotal   = "Total"
	// headerIntake names the process that spooled the batch, in a cluster: totals
	// are its own there.
	headerIntake = "Intake"
	// errStreamFull is JetStream's code for a stream at its bound (error code
	// JSStreamStoreFailedF).
	errStreamFull jetstream.ErrorCode = 10077
	// errStream: JSStreamGeneralErrorF, with an error of the file system, say.
	errStream jetstream.ErrorCode = 10051
)

// Stats counts records since the spool was opened.
type Stats struct {
	Spooled atomic.Uint64 // on disk
	Refused atomic.Uint64 // not taken: full
	Lost    atomic.Uint64 // not taken: closed before the engine took them
	Damaged atomic.Uint64 // were on disk and are not any more: found at start
	// Discarded were kept for a sink that does not run, and there was no room.
	Discarded atomic.Uint64
	Clipped   atomic.Uint64 // taken, but a field or the chunks of others were over the bounds
	Batches   atomic.Uint64
}

// Spool takes records in and hands them to its readers.
type Spool struct {
	Stats Stats
	// Refused is told of each record that Put took and that is not on disk after
	// all; nil: nobody is. It is set before the first Put.
	Refused func(rec *siptrace.Record)

	cfg       Config
	log       *slog.Logger
	engine    *engine
	js        jetstream.JetStream
	positions positions
	lock      *os.File
	maxBatch  int    // bytes
	spread    int    // shards that new records go to
	session   string // names this process: begins the ids of its batches
	full      atomic.Bool
	bounds    atomic.Pointer[bounds]
	shards    []*shard

	mu      sync.Mutex // covers what follows; never held during I/O
	readers []*reader
	changes map[string]string // of the positions, to be written down; "": forgotten

	save   chan struct{} // asks the checkpointer to save now
	saving sync.Mutex    // held while the positions are saved

	memories sync.Pool    // of batches
	sizeHint atomic.Int64 // bytes of one

	aborted   chan struct{} // closed by Abort
	abortOnce sync.Once
	stop      context.CancelFunc
	done      sync.WaitGroup
}

// shard is one stream and the batch that is being filled for it.
type shard struct {
	spool   *Spool
	index   int
	subject string
	stream  jetstream.Stream
	id      string // the stream's name and time of birth
	purged  uint64 // the checkpointer's: what is gone up to here
	recent  recent

	mu     sync.Mutex // covers what follows
	codec  codec
	cur    *batch
	closed bool
	taken  uint64 // records put

	// publishing is held while the engine gets a batch, and while all that the
	// shard holds is given up.
	publishing sync.Mutex

	settled  atomic.Uint64 // of them, those on disk or counted as not taken
	failed   atomic.Uint64 // of these, those not taken
	flushNow chan struct{} // asks the publisher not to wait for more records

	end     sync.Mutex    // makes the next two one
	total   atomic.Uint64 // records in the stream since it was made
	lastSeq atomic.Uint64 // the last batch in it, as far as is known here
	bytes   atomic.Int64  // in the stream, as of the last second and without what went since
	first   atomic.Int64  // when the oldest batch in it was taken, as of the last second: Unix nanoseconds
	noted   uint64        // the checkpointer's: the total that is written down
	// recovered is the total when the spool was opened.
	recovered uint64
	ahead     uint64 // the publisher's: numbers up to here are noted as in use

	full chan *batch // closed batches, in order
	free chan *batch
}

type batch struct {
	*memory
	records int
	opened  time.Time
}

// buffers is how many batches of a shard may be on their way to disk before
// Put waits.
const buffers = 8

// clusterPatience is how long a cluster may take to be ready at start.
const clusterPatience = time.Minute

// Open starts the engine and creates what is missing in it.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Spool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Spool{cfg: cfg, log: log, session: nuid.Next(), changes: map[string]string{}, save: make(chan struct{}, 1), aborted: make(chan struct{})}
	s.bounds.Store(&bounds{cfg.MaxBytes, cfg.MaxAge})
	for began := time.Now(); ; {
		err := s.open(ctx)
		if err == nil {
			break
		}
		s.release()
		// A cluster that starts with us elects its leaders first.
		if !s.Shared() || ctx.Err() != nil || time.Since(began) > clusterPatience {
			return nil, err
		}
		log.Warn("spool: the cluster is not ready, trying again", "err", err)
		time.Sleep(time.Second)
		s.shards, s.readers, s.engine = nil, nil, nil
	}
	run, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, sh := range s.shards {
		s.done.Go(func() { sh.publish(run) })
	}
	s.done.Go(func() { s.checkpointer(run) })
	return s, nil
}

func (s *Spool) open(ctx context.Context) error {
	var err error
	if s.cfg.NATS == "" {
		if s.lock, err = lockDir(s.cfg.Dir); err != nil {
			return err
		}
	}
	if s.engine, err = openEngine(ctx, s.cfg, s.log); err != nil {
		return err
	}
	// What is left is room for the headers.
	if s.maxBatch = int(s.engine.conn.MaxPayload()) - 4<<10; s.maxBatch < s.cfg.BatchBytes {
		return fmt.Errorf("spool: the cluster takes messages of %d bytes: raise its max_payload over spool.batch_bytes (%d), to 8 MiB at best", s.engine.conn.MaxPayload(), s.cfg.BatchBytes)
	}
	if s.js, err = jetstream.New(s.engine.conn); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	replicas := 1
	if s.Shared() {
		replicas = s.cfg.Replicas
		kv, err := s.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: positionsKV, History: 1, Storage: jetstream.FileStorage, Replicas: replicas,
		})
		if err != nil {
			return fmt.Errorf("spool: positions: %w", err)
		}
		s.positions = clusterPositions{kv}
	} else if s.positions, err = openPositions(s.cfg.Dir, s.log); err != nil {
		return err
	}
	n, err := s.streams(ctx)
	if err != nil {
		return err
	}
	backlog := false
	for i := range n {
		sh, err := s.openShard(ctx, i, replicas)
		if err != nil {
			return err
		}
		s.shards = append(s.shards, sh)
		backlog = backlog || sh.stream.CachedInfo().State.Msgs > 0
	}
	if err := s.findDormant(ctx); err != nil {
		return err
	}
	return s.agreeOnShards(ctx, backlog)
}

// agreeOnShards decides over how many shards calls are spread. Another number
// would send the rest of a call to another shard while its beginning still
// waits, so the number changes when nothing waits; in a cluster the first one
// sets it.
func (s *Spool) agreeOnShards(ctx context.Context, backlog bool) error {
	const key = "shards"
	text, _, err := s.positions.get(ctx, key)
	if err != nil {
		return fmt.Errorf("spool: positions: %w", err)
	}
	s.spread = s.cfg.Shards
	before, _ := strconv.Atoi(text)
	if before > 0 && before <= len(s.shards) && before != s.cfg.Shards && (backlog || s.Shared()) {
		s.spread = before
		s.log.Warn("spool: the number of shards stays as it was until nothing waits any more (key spool.shards)", "shards", before, "configured", s.cfg.Shards)
		return nil
	}
	if err := s.positions.put(ctx, key, strconv.Itoa(s.spread)); err != nil {
		return fmt.Errorf("spool: positions: %w", err)
	}
	return nil
}

// streams is how many shards there are: at least the configured number, and
// those of an earlier, larger configuration that may still hold records.
func (s *Spool) streams(ctx context.Context) (int, error) {
	n := s.cfg.Shards
	names := s.js.StreamNames(ctx, jetstream.WithStreamListSubject(subjectRoot+"*"))
	for name := range names.Name() {
		if i, err := strconv.Atoi(name[min(len(streamPrefix), len(name)):]); err == nil && i >= n {
			n = i + 1
		}
	}
	if err := names.Err(); err != nil {
		return 0, fmt.Errorf("spool: %w", err)
	}
	return n, nil
}

func (s *Spool) openShard(ctx context.Context, i, replicas int) (*shard, error) {
	discard := jetstream.DiscardNew
	if s.cfg.Full == DropOldest {
		discard = jetstream.DiscardOld
	}
	// The engine of our own is bounded by admit: a stream with a bound in bytes
	// works on blocks of 8 MiB, several in memory at a time, one that is bounded in
	// messages per subject on half of that (nats-server/v2, server/stream.go,
	// autoTuneFileStorageBlockSize).
	maxBytes, maxMsgs := int64(-1), int64(1<<62)
	if s.Shared() {
		maxMsgs = -1
		if n := s.maxBytes(); n > 0 {
			maxBytes = n
		}
	}
	sh := &shard{spool: s, index: i, subject: subjectRoot + strconv.Itoa(i), full: make(chan *batch, buffers), free: make(chan *batch, buffers), flushNow: make(chan struct{})}
	subjects := []string{sh.subject}
	if s.Shared() {
		subjects = append(subjects, sh.subject+".*") // one for each intake
	}
	var err error
	sh.stream, err = s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:       streamPrefix + strconv.Itoa(i),
		Subjects:   subjects,
		Storage:    jetstream.FileStorage,
		Retention:  jetstream.LimitsPolicy,
		Discard:    discard,
		MaxBytes:   maxBytes,
		MaxAge:     s.cfg.MaxAge,
		MaxMsgSize: -1,
		Replicas:   replicas,

		MaxMsgsPerSubject: maxMsgs,
	})
	if err != nil {
		return nil, fmt.Errorf("spool: stream %s%d: %w", streamPrefix, i, err)
	}
	info := sh.stream.CachedInfo()
	sh.id = fmt.Sprintf("%s%d@%x", streamPrefix, i, info.Created.UnixNano())
	sh.lastSeq.Store(info.State.LastSeq)
	sh.bytes.Store(int64(info.State.Bytes))
	sh.first.Store(info.State.FirstTime.UnixNano())
	if !s.Shared() {
		if err := sh.recoverTotal(ctx, info.State.LastSeq); err != nil {
			return nil, err
		}
		if err := sh.goAhead(ctx); err != nil {
			return nil, err
		}
		sh.recent.end = sh.lastSeq.Load()
		sh.recent.head = sh.recent.end
	}
	for range buffers {
		sh.free <- &batch{}
	}
	return sh, nil
}

// recoverTotal reads how many records the stream took, from its last batch and
// from what was noted beside it. When the stream has fewer, its end is gone:
// the files are damaged.
func (sh *shard) recoverTotal(ctx context.Context, last uint64) error {
	var total uint64
	if last > 0 {
		msg, err := sh.stream.GetMsg(ctx, last)
		switch {
		case err == nil:
			_, total = batchHeader(msg.Header)
		case !errors.Is(err, jetstream.ErrMsgNotFound):
			return fmt.Errorf("spool: stream %s: %w", sh.id, err)
		}
	}
	noted, atSeq, err := sh.notedTotal(ctx)
	if err != nil {
		return err
	}
	if noted > total {
		if last < atSeq {
			sh.spool.Stats.Damaged.Add(noted - total)
			sh.spool.log.Error("spool: the end of a shard is gone, its files are damaged", "shard", sh.index, "messages_lost", noted-total)
		}
		total = noted
	}
	sh.total.Store(total)
	sh.recovered = total
	return nil
}

// advance notes that the stream ends with a batch.
func (sh *shard) advance(seq, total uint64) {
	sh.end.Lock()
	defer sh.end.Unlock()
	sh.lastSeq.Store(seq)
	sh.total.Store(total)
}

// tail is the stream's last batch and the records up to it.
func (sh *shard) tail() (seq, total uint64) {
	sh.end.Lock()
	defer sh.end.Unlock()
	return sh.lastSeq.Load(), sh.total.Load()
}

// totalPrefix begins the keys of the shards' totals.
const totalPrefix = "taken"

func (sh *shard) totalKey() string { return totalPrefix + "." + strconv.Itoa(sh.index) }

// notedTotal is the count of records, and the last batch, that were noted when
// the checkpointer last came by.
func (sh *shard) notedTotal(ctx context.Context) (total, seq uint64, err error) {
	text, _, err := sh.spool.positions.get(ctx, sh.totalKey())
	if err != nil {
		return 0, 0, fmt.Errorf("spool: position of shard %d: %w", sh.index, err)
	}
	var id string
	if n, _ := fmt.Sscan(text, &total, &seq, &id); n == 3 && id == sh.id {
		return total, seq, nil
	}
	return 0, 0, nil // of a stream that is gone
}

// noteTotal writes down how many records the stream took.
func (sh *shard) noteTotal(ctx context.Context) error {
	total, seq := sh.total.Load(), sh.lastSeq.Load()
	if total == sh.noted {
		return nil
	}
	if err := sh.spool.positions.put(ctx, sh.totalKey(), fmt.Sprintf("%d %d %s", total, seq, sh.id)); err != nil {
		return fmt.Errorf("spool: position of shard %d: %w", sh.index, err)
	}
	sh.noted = total
	return nil
}

// Shared reports whether other processes may use the streams too.
func (s *Spool) Shared() bool { return s.cfg.NATS != "" }

func batchHeader(h nats.Header) (records int, total uint64) {
	records, _ = strconv.Atoi(h.Get(headerRecords))
	total, _ = strconv.ParseUint(h.Get(headerTotal), 10, 64)
	return records, total
}

// Shards is the number of shards to read; it can be more than configured.
func (s *Spool) Shards() int { return len(s.shards) }

// Put takes a copy of rec. It waits while the engine is slower than the intake
// (its batches are all under way), and never for a sink. An error means that
// the record was not taken.
func (s *Spool) Put(rec *siptrace.Record) error {
	sh := s.shards[shardOf(rec.CallID, s.spread)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.closed {
		return ErrClosed
	}
	if sh.cur == nil {
		if sh.cur = s.freeBatch(sh); sh.cur == nil {
			return ErrClosed
		}
	}
	b := sh.cur
	whole := len(b.data)
	var err error
	if b.data, err = sh.codec.append(b.data, rec); err != nil {
		b.data = b.data[:whole]
		return err
	}
	if len(b.data) > s.maxBatch && whole > 0 {
		// Too much for one message of the engine: the record begins the next batch.
		next := s.freeBatch(sh)
		if next == nil {
			b.data = b.data[:whole]
			return ErrClosed
		}
		next.data = append(next.data, b.data[whole:]...)
		b.data = b.data[:whole]
		sh.full <- b
		b, sh.cur = next, next
	}
	if sh.codec.clipped {
		s.Stats.Clipped.Add(1)
	}
	b.records++
	sh.taken++
	if len(b.data) >= s.cfg.BatchBytes {
		sh.full <- b // has room: there are no more batches than buffers
		sh.cur = nil
	}
	return nil
}

// freeBatch begins a batch, once one is free; nil after Abort.
func (s *Spool) freeBatch(sh *shard) (b *batch) {
	select {
	case b = <-sh.free:
	default:
		select {
		case b = <-sh.free:
		case <-s.aborted:
			return nil
		}
	}
	b.opened = time.Now()
	if b.memory, _ = s.memories.Get().(*memory); b.memory == nil {
		b.memory = &memory{pool: &s.memories, data: make([]byte, 0, s.sizeHint.Load())}
	}
	b.users.Store(1)
	return b
}

// publish carries the shard's batches to the engine, one after the other, so
// that their order holds through every retry.
func (sh *shard) publish(ctx context.Context) {
	tick := time.NewTicker(sh.spool.cfg.BatchAge)
	defer tick.Stop()
	for {
		select {
		case b, ok := <-sh.full:
			if !ok {
				return
			}
			sh.send(ctx, b)
		case <-tick.C:
			if b := sh.takeExpired(sh.spool.cfg.BatchAge); b != nil {
				sh.send(ctx, b)
			}
		case <-sh.flushNow:
			if b := sh.takeExpired(0); b != nil {
				sh.send(ctx, b)
			}
		}
	}
}

// takeExpired takes the open batch if it has the age and nothing older waits.
func (sh *shard) takeExpired(age time.Duration) *batch {
	// Put may hold the lock while it waits for a batch that only we can free.
	if !sh.mu.TryLock() {
		return nil
	}
	defer sh.mu.Unlock()
	if sh.cur == nil || len(sh.full) > 0 || time.Since(sh.cur.opened) < age {
		return nil
	}
	b := sh.cur
	sh.cur = nil
	return b
}

const (
	publishTimeout = 5 * time.Second
	firstRetry     = 10 * time.Millisecond
	maxBackoff     = 2 * time.Second
)

var (
	errDiskFull = errors.New("the file system is full")
	errBound    = errors.New("it holds spool.max_bytes")
)

// maxBytes is the bound of one shard.
func (s *Spool) maxBytes() int64 { return s.bounds.Load().bytes / int64(s.cfg.Shards) }

// admit reports whether there is room for n bytes more.
func (sh *shard) admit(n int) error {
	s := sh.spool
	switch {
	case s.engine.diskFull():
		return errDiskFull
	case !s.Shared() && s.maxBytes() > 0 && sh.bytes.Load()+int64(n) > s.maxBytes():
		return errBound
	}
	return nil
}

// measure looks how large the stream is.
func (sh *shard) measure(ctx context.Context) error {
	info, err := sh.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("spool: shard %d: %w", sh.index, err)
	}
	sh.bytes.Store(int64(info.State.Bytes))
	sh.first.Store(info.State.FirstTime.UnixNano())
	return nil
}

// send puts one batch into the stream, however long that takes, and counts what
// became of its records.
func (sh *shard) send(ctx context.Context, b *batch) {
	total := sh.total.Load() + uint64(b.records)
	msg := sh.message(b, total)
	failing := false
	for backoff := firstRetry; ; backoff = min(2*backoff, maxBackoff) {
		err := sh.makeRoom(ctx, len(b.data))
		if err == nil {
			err = sh.publishOnce(ctx, msg, total)
		}
		switch {
		case err == nil:
			sh.spooled(b, total)
			if failing {
				sh.spool.log.Info("spool: taking records again", "shard", sh.index)
			}
			sh.recycle(b)
			return
		case sh.refuses(err):
			sh.refused(b, err)
			sh.recycle(b)
			return
		case ctx.Err() != nil:
			sh.spool.Stats.Lost.Add(uint64(b.records))
			sh.fail(b)
			sh.recycle(b)
			return
		}
		if !failing {
			sh.spool.log.Error("spool: the engine takes no records, trying again", "shard", sh.index, "err", err)
			failing = true
		}
		if errors.Is(err, context.DeadlineExceeded) {
			sh.spool.engine.restart()
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
	}
}

// message is a batch as the engine gets it.
func (sh *shard) message(b *batch, total uint64) *nats.Msg {
	s := sh.spool
	msg := &nats.Msg{Subject: sh.subject, Data: b.data, Header: nats.Header{
		headerRecords: {strconv.Itoa(b.records)},
		headerTotal:   {strconv.FormatUint(total, 10)},
		// A batch whose acknowledgement was lost is known by its id, so that a
		// retry does not double it.
		nats.MsgIdHdr: {s.session + "." + strconv.FormatUint(s.Stats.Batches.Add(1), 36)},
	}}
	if s.Shared() {
		msg.Subject += "." + s.session
		msg.Header.Set(headerIntake, s.session)
	}
	return msg
}

// makeRoom returns nil when there is room for n bytes more. What is kept for a
// sink that does not run goes first; then the oldest messages, where
// Config.Full says so.
func (sh *shard) makeRoom(ctx context.Context, n int) error {
	s := sh.spool
	for {
		err := sh.admit(n)
		switch {
		case err == nil:
			return nil
		case sh.discardDormant():
			if err := s.savePositions(ctx); err != nil {
				s.log.Warn("spool: positions not saved, trying again", "err", err)
			}
			continue
		case s.cfg.Full == RefuseNew:
			return err
		}
		if errors.Is(err, errDiskFull) && !s.full.Swap(true) {
			s.log.Error("spool: the disk is full, the oldest messages are dropped (keys spool.dir, spool.full)", "shard", sh.index)
		}
		// Counted by the sinks that miss it.
		if dropped, err := sh.dropOldest(ctx); !dropped || err != nil {
			return errors.Join(errDiskFull, err)
		}
	}
}

// publishOnce hands a batch to the engine.
func (sh *shard) publishOnce(ctx context.Context, msg *nats.Msg, total uint64) error {
	s := sh.spool
	if next := sh.lastSeq.Load() + numbersLeft; !s.Shared() && next > sh.ahead {
		if err := sh.noteAhead(ctx, next+numbersAhead); err != nil {
			s.log.Warn("spool: positions not saved, trying again", "err", err)
			sh.ahead = next
		}
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	sh.publishing.Lock()
	defer sh.publishing.Unlock()
	ack, err := s.js.PublishMsg(ctx, msg)
	if err == nil {
		sh.advance(ack.Sequence, total)
	}
	return err
}

// spooled counts a batch that the engine has, and offers it to the readers.
func (sh *shard) spooled(b *batch, total uint64) {
	s := sh.spool
	sh.bytes.Add(int64(len(b.data)))
	sh.recent.offer(&Batch{Seq: sh.lastSeq.Load(), Records: b.records, total: total, taken: time.Now(), data: b.data, memory: b.memory})
	s.Stats.Spooled.Add(uint64(b.records))
	s.full.Store(false)
}

// refuses reports whether a batch is not tried again after an error.
func (sh *shard) refuses(err error) bool {
	var api *jetstream.APIError
	full := errors.Is(err, errDiskFull) || errors.Is(err, errBound) || errors.As(err, &api) && api.ErrorCode == errStreamFull
	return full && sh.spool.cfg.Full == RefuseNew || errors.Is(err, nats.ErrMaxPayload)
}

func (sh *shard) refused(b *batch, err error) {
	s := sh.spool
	sh.fail(b)
	s.Stats.Refused.Add(uint64(b.records))
	if !s.full.Swap(true) {
		s.log.Error("spool: full, new messages are refused; see what keeps the sinks (keys spool.max_bytes, spool.dir)", "shard", sh.index, "err", err)
	}
}

// fail counts a batch that is not on disk and won't be, and says so of each of its
// records.
func (sh *shard) fail(b *batch) {
	sh.failed.Add(uint64(b.records))
	if sh.spool.Refused == nil {
		return
	}
	var d Decoder
	_ = d.Each(&Batch{data: b.data}, func(rec *siptrace.Record, _ []byte) error {
		sh.spool.Refused(rec)
		return nil
	})
}

// recycle makes a batch that is dealt with ready for Put.
func (sh *shard) recycle(b *batch) {
	sh.settled.Add(uint64(b.records))
	sh.spool.sizeHint.Store(int64(len(b.data) + len(b.data)/16))
	b.release()
	*b = batch{}
	sh.free <- b
}

// ErrNotTaken is the answer to Sync when records did not make it.
var ErrNotTaken = errors.New("spool: records were not taken")

// Mark is where a sender begins whose records Sync is to vouch for.
func (s *Spool) Mark() (mark uint64) {
	for _, sh := range s.shards {
		mark += sh.failed.Load()
	}
	return mark
}

// Sync returns when every record that was put before is in the spool: safe from
// a crash of this process, and after the next sync of the disk from one of the
// machine. It is the base of an acknowledgement to a sender. The error is
// ErrNotTaken when the spool refused or lost a record, of whatever sender, since
// mark, and may be ErrClosed after Abort.
func (s *Spool) Sync(ctx context.Context, mark uint64) error {
	const poll = 500 * time.Microsecond
	for _, sh := range s.shards {
		sh.mu.Lock()
		taken := sh.taken
		sh.mu.Unlock()
		for sh.settled.Load() < taken {
			select {
			case sh.flushNow <- struct{}{}:
			default: // the publisher is at work
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-s.aborted:
				return ErrClosed
			case <-time.After(poll):
			}
		}
	}
	if s.Mark() > mark {
		return ErrNotTaken
	}
	return nil
}

// Abort ends the waiting for an engine that takes nothing: Put and Sync come back
// with ErrClosed.
func (s *Spool) Abort() { s.abortOnce.Do(func() { close(s.aborted) }) }

// Close takes no more records and waits until those it has are on disk, or
// until ctx ends: then they are lost, and counted. It closes the engine.
// Consumers have to be stopped before.
func (s *Spool) Close(ctx context.Context) error {
	s.Flush(ctx)
	s.stop()
	if !s.join(ctx) {
		for _, sh := range s.shards {
			sh.mu.Lock()
			s.Stats.Lost.Add(sh.taken - sh.settled.Load())
			sh.mu.Unlock()
		}
		s.releaseWithin(ctx)
		return errors.New("spool: the engine is stuck, going on without it")
	}
	// No trimming without time for it; what is written down is small.
	save := ctx
	if !s.Shared() {
		save = context.WithoutCancel(ctx)
	}
	s.resumeAll(ctx)
	oldest, err := s.saveAll(save)
	if err == nil && ctx.Err() == nil {
		err = s.trim(ctx, oldest)
	}
	for _, sh := range s.shards {
		if !s.Shared() { // all is on disk in a moment: no number is in doubt
			err = errors.Join(err, sh.noteAhead(ctx, sh.lastSeq.Load()))
		}
	}
	s.releaseWithin(ctx)
	return err
}

// closePatience is how long publishers and checkpointer may take to come back
// from the engine and from the disk once the context of Close ended.
const closePatience = 300 * time.Millisecond

// join waits for the publishers and the checkpointer; ended is false when they
// are stuck. A slow disk is no reason to leave before ctx ends: the offsets would
// not be saved.
func (s *Spool) join(ctx context.Context) (ended bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.done.Wait()
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	select {
	case <-done:
		return true
	case <-time.After(closePatience):
		return false
	}
}

// Flush closes the intake and returns when all records taken in are on disk, or
// when ctx ends, which aborts. Consumers go on.
func (s *Spool) Flush(ctx context.Context) {
	defer context.AfterFunc(ctx, s.Abort)()
	for _, sh := range s.shards {
		sh.mu.Lock()
		if !sh.closed {
			sh.closed = true
			if sh.cur != nil {
				sh.full <- sh.cur
				sh.cur = nil
			}
			close(sh.full)
		}
		sh.mu.Unlock()
	}
	for _, sh := range s.shards {
		for range buffers {
			select {
			case <-sh.free:
			case <-ctx.Done():
				return
			}
		}
		// Handed back, so that a second Flush finds them too.
		for range buffers {
			sh.free <- &batch{}
		}
	}
}

// releaseWithin closes the engine; when ctx ends first, the end of the process
// does.
func (s *Spool) releaseWithin(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.release()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

func (s *Spool) release() {
	if s.engine != nil {
		s.engine.close()
	}
	if s.lock != nil {
		s.lock.Close()
	}
}

const lockFile = "lock"

// lockDir keeps a second process off the directory. The kernel frees the lock
// when the process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("spool: directory (key spool.dir): %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("spool: directory (key spool.dir): %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		return nil, &InUseError{dir, holder(f)}
	}
	// For who finds it in use; a full disk must not keep anybody from starting.
	if f.Truncate(0) == nil {
		_, _ = fmt.Fprintln(f, os.Getpid())
	}
	return f, nil
}
