// A key's life through IBM's Node SDK: created, read, listed, locked, refused, unlocked,
// disabled, enabled, deleted. KEYTRAIL_URL, KEYTRAIL_APIKEY, KEYTRAIL_IAM_ID and
// KEYTRAIL_ACCOUNT_ID say where and who; scripts/ibmsuite sets them.
import assert from 'node:assert/strict';
import auth from '@ibm-cloud/platform-services/auth/index.js';
import identity from '@ibm-cloud/platform-services/iam-identity/v1.js';

const { KEYTRAIL_URL: url, KEYTRAIL_APIKEY: apikey, KEYTRAIL_IAM_ID: iamId, KEYTRAIL_ACCOUNT_ID: accountId } = process.env;
const signIn = (value) => new auth.IamAuthenticator({ apikey: value, url });
const iam = new identity({ serviceUrl: url, authenticator: signIn(apikey) });

// refused runs call and returns the error that it must end with.
const refused = async (status, call) => {
  const err = await call().then(() => assert.fail(`want ${status}`), (e) => e);
  assert.equal(err.status, status, err.message);
  return err;
};

const name = `node-sdk-${Date.now()}`;
const created = await iam.createApiKey({ name, iamId, accountId, description: 'from the Node SDK' });
assert.equal(created.status, 201);
const { id, apikey: value } = created.result;
assert.ok(value, 'the value is shown once');

const key = (await iam.getApiKey({ id, includeHistory: true, includeActivity: true })).result;
assert.equal(key.name, name);
assert.equal(key.apikey ?? '', '');
assert.equal(key.history.length, 1);
assert.equal(key.activity.authn_count, 0);

const list = (await iam.listApiKeys({ accountId, iamId, filter: `name eq "${name}"` })).result;
assert.deepEqual(list.apikeys.map((k) => k.id), [id]);

await signIn(value).authenticate({ headers: {} });

const updated = await iam.updateApiKey({ id, ifMatch: key.entity_tag, description: 'changed' });
assert.equal(updated.result.description, 'changed');
await refused(409, () => iam.updateApiKey({ id, ifMatch: key.entity_tag, description: 'lost' }));

assert.equal((await iam.lockApiKey({ id })).status, 204);
assert.equal((await iam.getApiKey({ id })).result.locked, true);
await refused(409, () => iam.deleteApiKey({ id }));
assert.equal((await iam.unlockApiKey({ id })).status, 204);

assert.equal((await iam.disableApiKey({ id })).status, 204);
await refused(400, () => signIn(value).authenticate({ headers: {} }));
assert.equal((await iam.enableApiKey({ id })).status, 204);

assert.equal((await iam.deleteApiKey({ id })).status, 204);
await refused(404, () => iam.getApiKey({ id }));
console.log('IBM Node SDK: created, locked and deleted a key');
