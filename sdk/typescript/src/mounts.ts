/** Buckets in the sandbox's tree: the daemon's mounts under the names of the Cloudflare SDK. */
import type { AddMount, MountCredentials, MountView } from './api.js';
import { Core, PHRASES } from './core.js';
import { BucketUnmountError, InvalidMountConfigError, MissingCredentialsError, SandboxError, failure, retold } from './errors.js';
import type { MountBucketOptions } from './types.js';

/** Who asks: what is given, or what the environment of this program has. */
function credentialsOf(options: MountBucketOptions): MountCredentials | undefined {
  const { credentials } = options;
  if (credentials && 'accessKeyId' in credentials) {
    return {
      access_key_id: credentials.accessKeyId,
      secret_access_key: credentials.secretAccessKey,
      ...(credentials.sessionToken !== undefined && { session_token: credentials.sessionToken }),
    };
  }
  if (credentials) return credentials;
  const { env } = process;
  for (const kind of ['AWS', 'R2'] as const) {
    const [id, secret] = [env[`${kind}_ACCESS_KEY_ID`], env[`${kind}_SECRET_ACCESS_KEY`]];
    const token = kind === 'AWS' ? env['AWS_SESSION_TOKEN'] : undefined;
    if (id && secret) return { access_key_id: id, secret_access_key: secret, ...(token && { session_token: token }) };
  }
  // The daemon says whether its operator lends some.
  return undefined;
}

export async function mountBucket(core: Core, bucket: string, path: string, options: MountBucketOptions): Promise<void> {
  if (options.endpoint === undefined) throw options.localBucket ? PHRASES.localBucket() : PHRASES.r2();
  if (options.s3fsOptions !== undefined) throw PHRASES.s3fs();
  const local = options.endpoint.startsWith('file:');
  const body: AddMount = { bucket, path, endpoint: options.endpoint };
  if (options.prefix !== undefined) {
    if (!options.prefix.startsWith('/')) {
      throw failure(InvalidMountConfigError, 'INVALID_MOUNT_CONFIG', `the prefix ${options.prefix} does not begin with a slash`, {
        httpStatus: 400, context: { prefix: options.prefix },
      });
    }
    body.prefix = options.prefix;
  }
  if (options.readOnly !== undefined) body.read_only = options.readOnly;
  if (options.region !== undefined) body.region = options.region;
  else if (options.provider === 'r2') body.region = 'auto';
  const credentials = local ? undefined : credentialsOf(options);
  if (credentials) body.credentials = credentials;
  try {
    await core.call('mount', { body });
  } catch (error) {
    throw refused(error, body);
  }
}

/** What the request itself is refused for, in the classes of that SDK. */
function refused(error: unknown, { credentials }: AddMount): unknown {
  if (!(error instanceof SandboxError)) return error;
  if (!credentials && error.context['field'] === 'credentials') return retold(error, MissingCredentialsError, 'MISSING_CREDENTIALS', 400);
  return error.daemonCode === 'INVALID_REQUEST' ? retold(error, InvalidMountConfigError, 'INVALID_MOUNT_CONFIG', 400) : error;
}

export async function mountOf(core: Core, path: string): Promise<MountView> {
  const { mounts } = await core.call('listMounts');
  const wanted = path.length > 1 ? path.replace(/\/+$/, '') : path;
  const found = mounts.find((mount) => mount.path === wanted);
  if (!found) {
    throw failure(InvalidMountConfigError, 'INVALID_MOUNT_CONFIG', `No active mount found at path: ${path}`, {
      httpStatus: 400, context: { mountPath: path },
    });
  }
  return core.call('getMount', { path: { mount: found.id } });
}

export async function unmountBucket(core: Core, path: string): Promise<void> {
  const { id } = await mountOf(core, path);
  const gone = await core.call('unmount', { path: { mount: id } });
  if (gone.lost_count > 0) {
    throw failure(BucketUnmountError, 'BUCKET_UNMOUNT_ERROR', `${gone.lost_count} files are not in the bucket`, { context: { ...gone } });
  }
}
