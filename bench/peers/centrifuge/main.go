// Command centrifuge is a server made of the centrifuge library, as its documentation sets it up.
//
//	centrifuge PORT DATABASE SECRET
//
// A client subscribes to channels. A message {"room", "data"} is published to the channel and not
// answered; a publish command is answered after its data is committed to SQLite.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/centrifugal/centrifuge"
	"github.com/golang-jwt/jwt/v5"
	_ "github.com/mattn/go-sqlite3"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: centrifuge PORT DATABASE SECRET")
	}
	if err := serve(os.Args[1], os.Args[2], []byte(os.Args[3])); err != nil {
		log.Fatal(err)
	}
}

func serve(port, database string, secret []byte) error {
	store, err := openStore(database)
	if err != nil {
		return err
	}
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return err
	}
	node.OnConnecting(func(_ context.Context, event centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		var claims jwt.RegisteredClaims
		_, err := jwt.ParseWithClaims(event.Token, &claims, func(*jwt.Token) (any, error) {
			return secret, nil
		}, jwt.WithValidMethods([]string{"HS256"}))
		if err != nil {
			return centrifuge.ConnectReply{}, centrifuge.DisconnectInvalidToken
		}
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{UserID: claims.Subject}}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) { handle(node, store, client) })
	if err := node.Run(); err != nil {
		return err
	}

	collect := make(chan os.Signal, 1)
	signal.Notify(collect, syscall.SIGUSR2)
	go func() {
		for range collect {
			debug.FreeOSMemory()
		}
	}()

	http.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{}))
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	return http.Serve(listener, nil)
}

func handle(node *centrifuge.Node, store *store, client *centrifuge.Client) {
	client.OnSubscribe(func(_ centrifuge.SubscribeEvent, reply centrifuge.SubscribeCallback) {
		reply(centrifuge.SubscribeReply{}, nil)
	})
	client.OnMessage(func(event centrifuge.MessageEvent) {
		var message struct {
			Room string          `json:"room"`
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(event.Data, &message); err != nil {
			client.Disconnect(centrifuge.DisconnectBadRequest)
			return
		}
		if _, err := node.Publish(message.Room, message.Data); err != nil {
			log.Print(err)
		}
	})
	client.OnPublish(func(event centrifuge.PublishEvent, reply centrifuge.PublishCallback) {
		store.add(entry{event.Channel, event.Data, func(err error) {
			if err != nil {
				reply(centrifuge.PublishReply{}, err)
				return
			}
			result, err := node.Publish(event.Channel, event.Data)
			reply(centrifuge.PublishReply{Result: &result}, err)
		}})
	})
}

// store keeps payloads in SQLite; all that wait share one commit.
type store struct {
	db      *sql.DB
	waiting chan entry
}

type entry struct {
	room   string
	body   []byte
	stored func(error)
}

// maxBatch bounds how many payloads one transaction takes.
const maxBatch = 1024

func openStore(path string) (*store, error) {
	db, err := sql.Open("sqlite3", "file:"+path+"?_journal_mode=WAL&_synchronous=FULL")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	_, err = db.Exec(`CREATE TABLE messages (id INTEGER PRIMARY KEY, room TEXT, body TEXT);
		CREATE INDEX by_room ON messages (room, id)`)
	if err != nil {
		return nil, fmt.Errorf("creating the table: %w", err)
	}
	s := &store{db: db, waiting: make(chan entry, maxBatch)}
	go s.write()
	return s, nil
}

func (s *store) add(e entry) { s.waiting <- e }

func (s *store) write() {
	for first := range s.waiting {
		batch := []entry{first}
	gather:
		for len(batch) < maxBatch {
			select {
			case next := <-s.waiting:
				batch = append(batch, next)
			default:
				break gather
			}
		}
		err := s.commit(batch)
		for _, e := range batch {
			e.stored(err)
		}
	}
}

func (s *store) commit(batch []entry) error {
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	insert, err := tx.Prepare("INSERT INTO messages (room, body) VALUES (?, ?)")
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	defer insert.Close()
	for _, e := range batch {
		if _, err := insert.Exec(e.room, e.body); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}
