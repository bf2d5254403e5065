package ingest

import (
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/httpx"
)

// The groups of the API's description.
const (
	groupSignIn   = "signing in"
	groupKeys     = "keys"
	groupAccounts = "accounts and service IDs"
	groupUploads  = "usage"
	groupHorizon  = "horizon"
)

// The types of this file describe requests to readers of /openapi.json.

type keyRequest struct {
	ID      string `path:"id" description:"Id of the key."`
	Account string `query:"account_id" description:"The account of an external key, where several have one with that id."`
}

type getKeyRequest struct {
	keyRequest
	showRequest
}

type showRequest struct {
	AsOf     string `query:"as_of" description:"The key as it was then: RFC 3339, or a date, now, or relative such as -7d."`
	History  bool   `query:"include_history" description:"Show every change."`
	Activity bool   `query:"include_activity" description:"Count sign-ins."`
}

type detailsRequest struct {
	showRequest
	Value string `header:"IAM-ApiKey" required:"true" description:"The key's value. It is never echoed."`
}

type createKeyRequest struct {
	Lock    bool `header:"Entity-Lock" description:"Create it locked."`
	Disable bool `header:"Entity-Disable" description:"Create it disabled."`
	createKeyBody
}

type updateKeyRequest struct {
	keyRequest
	IfMatch string `header:"If-Match" required:"true" description:"The entity tag that was read, or *."`
	updateKeyBody
}

type listKeysRequest struct {
	Account  string `query:"account_id"`
	IAMID    string `query:"iam_id"`
	PageSize int    `query:"pagesize" minimum:"1" maximum:"100" default:"20"`
	Token    string `query:"pagetoken" description:"From the next or previous link."`
	Scope    string `query:"scope" enum:"entity,account" default:"entity"`
	Type     string `query:"type" enum:"user,serviceid,classic,functional,external"`
	Sort     string `query:"sort" enum:"name,description,created_at,created_by"`
	Order    string `query:"order" enum:"asc,desc" default:"asc"`
	History  bool   `query:"include_history"`
	Filter   string `query:"filter" description:"SCIM: name co \"Go\"; eq, co, sw; and, or."`
}

type tokenRequest struct {
	Grant   string `formData:"grant_type" enum:"urn:ibm:params:oauth:grant-type:apikey,refresh_token" required:"true"`
	Key     string `formData:"apikey" description:"Or as the password of the user apikey (Basic)."`
	Refresh string `formData:"refresh_token" description:"With the grant refresh_token. It is good once; used again it revokes its session."`
}

type idRequest struct {
	ID string `path:"id"`
}

type uploadDescription struct {
	Batch    string `header:"Keytrail-Batch-Id" description:"Names the batch: the same id with the same bytes changes nothing. Default: the SHA-256 of the body."`
	Encoding string `header:"Content-Encoding" enum:"gzip,zstd,identity"`
}

// PublicRoutes returns the routes that need no credential.
func (h *KeyAPI) PublicRoutes() apidoc.Table {
	return apidoc.Table{
		{
			Method: http.MethodPost, Path: "/identity/token", Group: groupSignIn, Public: true, Summary: "Sign in with a key, or stay signed in with a refresh token.",
			Request: tokenRequest{}, Answers: apidoc.OK(tokenView{}), Handler: h.token,
		},
		{
			Method: http.MethodGet, Path: "/identity/keys", Group: groupSignIn, Public: true, Summary: "The keys that check our tokens.",
			Answers: apidoc.OK(keySetView{}), Handler: h.keySet,
		},
	}
}

// Routes returns the routes that need a credential: see [KeyAPI.Require].
func (h *KeyAPI) Routes() apidoc.Table {
	return slices.Concat(
		h.keyRoutes(),
		h.verifyRoutes(),
		h.introspectRoutes(),
		h.sessionRoutes(),
		h.accountRoutes(),
		h.serviceIDRoutes(),
		h.limitRoutes(),
		h.settingsRoutes(),
		h.userRoutes(),
		h.contactRoutes(),
		h.grantRoutes(),
		h.privilegeRoutes(),
		h.holdRoutes(),
		h.emptyRoutes(), h.reportRoutes(),
	)
}

func (h *KeyAPI) keyRoutes() apidoc.Table {
	created := []apidoc.Answer{{Status: http.StatusCreated, Body: keyView{}, Description: "The value is shown this once."}}
	return apidoc.Table{
		{Method: http.MethodGet, Path: "/v1/apikeys", Group: groupKeys, Summary: "List keys.", Request: listKeysRequest{}, Answers: apidoc.OK(listView{}), Handler: h.listKeys},
		{Method: http.MethodPost, Path: "/v1/apikeys", Group: groupKeys, Summary: "Create a key.", Request: createKeyRequest{}, Answers: created, Handler: h.createKey},
		{Method: http.MethodGet, Path: "/v1/apikeys/details", Group: groupKeys, Summary: "Find a key by its value.", Request: detailsRequest{}, Answers: apidoc.OK(keyView{}), Handler: h.keyByValue},
		{Method: http.MethodGet, Path: "/v1/apikeys/:id", Group: groupKeys, Summary: "One key, now or as it was.", Request: getKeyRequest{}, Answers: apidoc.OK(keyView{}), Handler: h.getKey},
		{Method: http.MethodPut, Path: "/v1/apikeys/:id", Group: groupKeys, Summary: "Change the given fields.", Request: updateKeyRequest{}, Answers: apidoc.OK(keyView{}), Handler: h.updateKey},
		h.rotateRoute(),
		h.actRoute(http.MethodDelete, "/v1/apikeys/:id", "Delete a key; its history stays.", func(o Order, at time.Time) domain.KeyCommand {
			return domain.DeleteKey{By: o.Caller.Initiator, At: at}
		}),
		h.actRoute(http.MethodPost, "/v1/apikeys/:id/lock", "Refuse changes of a key.", func(o Order, at time.Time) domain.KeyCommand {
			return domain.LockKey{By: o.Caller.Initiator, At: at}
		}),
		h.actRoute(http.MethodDelete, "/v1/apikeys/:id/lock", "Allow changes of a key.", func(o Order, at time.Time) domain.KeyCommand {
			return domain.UnlockKey{By: o.Caller.Initiator, At: at}
		}),
		h.actRoute(http.MethodPost, "/v1/apikeys/:id/disable", "Refuse a key at its next use.", func(o Order, at time.Time) domain.KeyCommand {
			return domain.DisableKey{By: o.Caller.Initiator, At: at}
		}),
		h.actRoute(http.MethodDelete, "/v1/apikeys/:id/disable", "Let a disabled key work.", func(o Order, at time.Time) domain.KeyCommand {
			return domain.EnableKey{By: o.Caller.Initiator, At: at}
		}),
	}
}

// actRoute is a command on one key without a body.
func (h *KeyAPI) actRoute(method, path, summary string, command func(Order, time.Time) domain.KeyCommand) apidoc.Route {
	return apidoc.Route{
		Method: method, Path: path, Group: groupKeys, Summary: summary, Request: keyRequest{},
		Answers: []apidoc.Answer{{Status: http.StatusNoContent}}, Handler: h.change(command),
	}
}

func (h *KeyAPI) accountRoutes() apidoc.Table {
	createdAccount := []apidoc.Answer{{Status: http.StatusCreated, Body: accountView{}}}
	return apidoc.Table{
		{Method: http.MethodPost, Path: "/v1/accounts", Group: groupAccounts, Summary: "Make an account.", Request: createAccountBody{}, Answers: createdAccount, Handler: h.createAccount},
		{Method: http.MethodGet, Path: "/v1/accounts", Group: groupAccounts, Summary: "The caller's accounts.", Answers: apidoc.OK(accountsView{}), Handler: h.listAccounts},
		{Method: http.MethodGet, Path: "/v1/accounts/:id", Group: groupAccounts, Summary: "One account.", Request: idRequest{}, Answers: apidoc.OK(accountView{}), Handler: h.getAccount},
	}
}

// Require lets only requests with a valid credential through; commands without one are
// recorded as refused before the answer.
func (h *KeyAPI) Require() gin.HandlerFunc { return h.Auth.Require(h.refused) }

// Register adds all routes to r.
func (h *KeyAPI) Register(r gin.IRouter) {
	limited := r.Group("", httpx.LimitBody(keyBodyBytesMax))
	h.PublicRoutes().Register(limited)
	h.Routes().Register(limited.Group("", h.Require()))
}

// UploadRoutes returns the routes by which uses come in: both need a credential.
func UploadRoutes(u *Usage, i *Importer) apidoc.Table {
	return apidoc.Table{
		{
			Method: http.MethodPost, Path: "/v1/usage", Group: groupUploads, Summary: "Record uses of keys.",
			Description: "One JSON object a line: id, time, key_id or key_hash, account_id, action, access, outcome, status, source_ip, user_agent, region, target, request_id, latency_ms, bytes, labels. The answer comes when all accepted uses are durable.",
			Request:     uploadDescription{}, Answers: []apidoc.Answer{{Status: http.StatusAccepted, Body: UsageAnswer{}}}, Handler: u.HandleUsage,
		},
		{
			Method: http.MethodPost, Path: "/v1/imports/cloudtrail", Group: groupUploads, Summary: "Import records of AWS CloudTrail.",
			Description: "One record a line. Each is one use, however often it is sent.",
			Request:     uploadDescription{}, Answers: []apidoc.Answer{{Status: http.StatusAccepted, Body: ImportAnswer{}}}, Handler: i.HandleCloudTrail,
		},
	}
}
