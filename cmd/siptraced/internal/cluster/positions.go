package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"siptraced/cmd/siptraced/internal/journal"
)

// positions is a key-value bucket of the cluster.
type positions struct {
	conn *nats.Conn
	kv   jetstream.KeyValue

	mu sync.Mutex // covers unsaved
	// unsaved are values for which there was no room, by key. What they say is done
	// goes all the same: a full cluster could not be emptied otherwise.
	unsaved map[string]kept
}

func (p *positions) Get(ctx context.Context, key string) (string, bool, error) {
	value, _, err := p.read(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return "", false, nil
	}
	return value, err == nil, err
}

// read is a value and its revision, by the server that leads: the client's Get takes the
// answer of any, which may be old. The error wraps jetstream.ErrKeyNotFound where there
// is none.
func (p *positions) read(ctx context.Context, key string) (value string, revision uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	request, err := json.Marshal(map[string]string{"last_by_subj": "$KV." + bucket + "." + key})
	if err != nil {
		return "", 0, keyError(key, err)
	}
	answer, err := within(ctx, func(ctx context.Context) (*nats.Msg, error) {
		return p.conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.KV_"+bucket, request)
	})
	if err != nil {
		return "", 0, keyError(key, err)
	}
	var got struct {
		Error   *jetstream.APIError
		Message struct {
			Seq        uint64
			Hdrs, Data []byte
		}
	}
	if err := json.Unmarshal(answer.Data, &got); err != nil {
		return "", 0, keyError(key, err)
	}
	switch {
	case got.Error != nil && got.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return "", 0, keyError(key, jetstream.ErrKeyNotFound)
	case got.Error != nil:
		return "", 0, keyError(key, got.Error)
	}
	if len(got.Message.Hdrs) > 0 {
		h, err := nats.DecodeHeadersMsg(got.Message.Hdrs)
		if err != nil {
			return "", 0, keyError(key, err)
		}
		if h.Get("KV-Operation") != "" { // removed
			return "", 0, keyError(key, jetstream.ErrKeyNotFound)
		}
	}
	return string(got.Message.Data), got.Message.Seq, nil
}

func keyError(key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("key %s of the bucket %s: %w", key, bucket, err)
}

func (p *positions) write(ctx context.Context, key string, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := within(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) })
	if api := (*jetstream.APIError)(nil); errors.As(err, &api) && isFull(api) {
		err = fmt.Errorf("%w: %w", journal.ErrFull, err)
	}
	return keyError(key, err)
}

func (p *positions) Put(ctx context.Context, key, value string) error {
	err := p.write(ctx, key, func(ctx context.Context) error {
		_, err := p.kv.PutString(ctx, key, value)
		return err
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.unsaved, key)
	if errors.Is(err, journal.ErrFull) {
		p.unsaved[key] = kept{value, time.Now()}
	}
	return err
}

func (p *positions) Remove(ctx context.Context, key string) error {
	p.mu.Lock()
	delete(p.unsaved, key)
	p.mu.Unlock()
	return p.write(ctx, key, func(ctx context.Context) error {
		if err := p.kv.Delete(ctx, key); !errors.Is(err, jetstream.ErrKeyNotFound) {
			return err
		}
		return nil
	})
}

func (p *positions) Keys(ctx context.Context) ([]string, error) {
	all, err := p.all(ctx)
	if err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(all))
	for key := range all {
		keys = append(keys, key)
	}
	return keys, nil
}

// kept is a value and when it was put.
type kept struct {
	value string
	at    time.Time
}

// all is the whole bucket, of this moment or one before, and what there was no room for.
func (p *positions) all(ctx context.Context) (map[string]kept, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	all, err := within(ctx, func(ctx context.Context) (map[string]kept, error) {
		w, err := p.kv.WatchAll(ctx, jetstream.IgnoreDeletes())
		if err != nil {
			return nil, err
		}
		defer func() { _ = w.Stop() }() // the bucket forgets a watcher that is away
		all := map[string]kept{}
		for {
			select {
			case v, ok := <-w.Updates():
				switch {
				case !ok:
					return nil, errors.New("the connection was lost")
				case v == nil: // these are all
					return all, nil
				}
				all[v.Key()] = kept{string(v.Value()), v.Created()}
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", bucket, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(all, p.unsaved)
	return all, nil
}

func (p *positions) Claim(ctx context.Context, key, value string) (held string, err error) {
	for {
		held, found, err := p.Get(ctx, key)
		if err != nil || found {
			return held, err
		}
		err = p.write(ctx, key, func(ctx context.Context) error {
			_, err := p.kv.Create(ctx, key, []byte(value))
			return err
		})
		if !errors.Is(err, jetstream.ErrKeyExists) {
			return value, err
		}
		// Somebody was faster, and the server that we asked did not know it yet.
		if err := sleep(ctx, changePause); err != nil {
			return "", err
		}
	}
}

// changePause is how long to wait before a change by revision is tried again.
const changePause = 50 * time.Millisecond

// change sets a key to what f makes of its value ("" where there is none), by
// revision: whatever comes between is seen. That it succeeds says that what f saw was
// the value of that moment, and not an older one.
func (p *positions) change(ctx context.Context, key string, f func(value string) string) error {
	for {
		value, revision, err := p.read(ctx, key)
		if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
			return err
		}
		err = p.write(ctx, key, func(ctx context.Context) error {
			if revision == 0 {
				_, err := p.kv.Create(ctx, key, []byte(f(value)))
				return err
			}
			_, err := p.kv.Update(ctx, key, []byte(f(value)), revision)
			return err
		})
		if !errors.Is(err, jetstream.ErrKeyExists) && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return err
		}
		if err := sleep(ctx, changePause); err != nil {
			return err
		}
	}
}

// Flush has nothing to do: what is put lasts.
func (p *positions) Flush(context.Context) error { return nil }
