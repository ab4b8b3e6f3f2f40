"""Create, update, patch, apply and delete, with the checks, defaults and ownership of a kube-apiserver."""

import copy
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dynamic_toolset.kube.objects import ObjectKey
from dynamic_toolset.sandbox import ownership, patches, status
from dynamic_toolset.sandbox.addresses import ClusterAddresses
from dynamic_toolset.sandbox.defaults import complete, known, tidy
from dynamic_toolset.sandbox.ownership import Managers
from dynamic_toolset.sandbox.resources import NAMESPACES, RESOURCES, SERVICES, Object, Resource, Target
from dynamic_toolset.sandbox.store import Store
from dynamic_toolset.sandbox.validation import misshapen, problems

SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_UNDELETABLE = frozenset({"default", "kube-public", "kube-system"})


class Writer:
    """Changes objects in a store. Every method raises StatusError for what the API would refuse.

    Written objects are never changed afterwards, and what a caller hands in is copied.
    """

    def __init__(self, store: Store, addresses: ClusterAddresses) -> None:
        self._store = store
        self._addresses = addresses
        for name in SYSTEM_NAMESPACES:
            self.create(Target(NAMESPACES), {"metadata": {"name": name}}, "kube-apiserver")

    def create(self, target: Target, body: Object, manager: str) -> Object:
        """Create an object and return it. ``target`` names the collection."""
        self._check_type(target.resource, body)
        new = self._accepted(target, body, code=400)
        named = Target(target.resource, target.namespace, new["metadata"].get("name", ""))
        new = complete(target.resource, tidy(new))
        owners = ownership.after_update({}, new, {}, ownership.Manager("Update", manager), _now())
        return self._create(named, new, owners)

    def update(self, target: Target, body: Object, manager: str) -> tuple[Object, bool]:
        """Replace an object. Return it, and whether it had to be created, as some kinds are."""
        self._check_type(target.resource, body)
        if target.status:
            return self._report(target, body), False
        new = self._accepted(target, body, code=400)
        old = self._find(target)
        if old is None:
            if not target.resource.upserted:
                raise status.not_found(target.resource, target.name)
            if uid := new["metadata"].get("uid"):
                raise _other_uid(target, uid, "")
            new["metadata"].pop("resourceVersion", None)
            return self.create(Target(target.resource, target.namespace), new, manager), True
        if target.resource.guarded and not new["metadata"].get("resourceVersion"):
            cause = status.Cause(
                "FieldValueInvalid", "Invalid value: 0: must be specified for an update", "metadata.resourceVersion"
            )
            raise status.invalid(target.resource.plural, target.resource.group, target.name, [cause])
        return self._update(target, old, new, manager), False

    def patch(self, target: Target, patch: Any, manager: str) -> Object:
        """Merge a JSON merge patch into an object, and return it."""
        if not isinstance(patch, dict):
            raise status.bad_request(f"error decoding patch: cannot use {type(patch).__name__} as an object")
        old = self._get(target)
        if target.status:
            return self._report(target, patches.merge(old, copy.deepcopy(patch)))
        new = self._accepted(target, patches.merge(old, copy.deepcopy(patch)), code=422)
        if "resourceVersion" not in (patch.get("metadata") or {}):
            new["metadata"].pop("resourceVersion", None)
        return self._update(target, old, new, manager)

    def apply(self, target: Target, body: Object, manager: str, *, force: bool) -> tuple[Object, bool]:
        """Apply what a manager wants an object to say. Return it, and whether it had to be created.

        A resourceVersion in ``body`` is a precondition if the object is there, and means nothing if it is not. A uid
        is one in both cases.
        """
        if (body.get("apiVersion"), body.get("kind")) != (target.resource.api_version, target.resource.kind):
            raise status.bad_request(f"invalid object type: {body.get('apiVersion')}, Kind={body.get('kind')}")
        if (body.get("metadata") or {}).get("managedFields"):
            raise status.bad_request("metadata.managedFields must be nil")
        if unknown := body.keys() - {"apiVersion", "kind", "metadata", *target.resource.fields}:
            raise _untyped(f".{min(unknown)}: field not declared in schema")
        if target.status:
            return self._report(target, body), False
        config = self._accepted(target, body, code=500)
        old = self._find(target)
        _check_identity(target, old, config)
        new, owners, conflicts = ownership.after_apply(
            old or {}, config, _owners(old), ownership.Manager("Apply", manager), _now()
        )
        if conflicts and not force:
            raise status.apply_conflict(
                {
                    f'"{other.name}"' + ("" if other.operation == "Apply" else f" using {target.resource.version}"): [
                        ownership.describe(path) for path in sorted(paths)
                    ]
                    for other, paths in sorted(conflicts.items(), key=lambda item: item[0])
                }
            )
        new = complete(target.resource, tidy(new))
        if old is None:
            new["metadata"].pop("resourceVersion", None)
            return self._create(target, new, owners), True
        return self._replace(target, old, new, owners), False

    def delete(self, target: Target, preconditions: Mapping[str, str]) -> Object:
        """Delete an object. Return the answer: the object as it was last, or a Status.

        A namespace takes everything that is in it along.
        """
        old = self._get(target)
        for field in ("uid", "resourceVersion"):
            if (wanted := preconditions.get(field)) and wanted != old["metadata"][field]:
                why = f"the {field} in the precondition ({wanted}) does not match the {field} in record"
                raise status.conflict(target.resource, target.name, f"{why} ({old['metadata'][field]})")
        if target.resource == NAMESPACES:
            return self._delete_namespace(target, old)
        removed = self._remove(target.resource, target.key)
        if target.resource.echoed:
            return removed
        details = {"name": target.name, "group": target.resource.group, "kind": target.resource.plural}
        details["uid"] = old["metadata"]["uid"]
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {key: value for key, value in details.items() if value},
        }

    def _report(self, target: Target, body: Object) -> Object:
        """Write the status of an object, and nothing else."""
        old = self._get(target)
        new = {**self._accepted(target, {**old, "status": copy.deepcopy(body.get("status"))}, code=400)}
        _check_version(target, old, body if body.get("metadata") else new)
        return self._store_with(target, old, new, _identity(old), _owners(old))

    # --- What comes in -----------------------------------------------------------------------------------------------

    def _check_type(self, resource: Resource, body: Object) -> None:
        given = (body.get("apiVersion", resource.api_version), body.get("kind", resource.kind))
        if given != (resource.api_version, resource.kind):
            raise status.bad_request(
                f'{given[1]} in version "{given[0]}" cannot be handled as a {resource.kind}: unknown conversion'
            )

    def _accepted(self, target: Target, body: Object, *, code: int) -> Object:
        """Return a copy of a body that can be decoded and that names what the URL names.

        ``code`` is what the API answers to a body that cannot be decoded, which depends on the kind of write.
        """
        body = copy.deepcopy(body)
        if not isinstance(body.get("metadata", {}), dict):
            raise status.bad_request("metadata: expected an object")
        new = known(target.resource, body)
        if why := misshapen(target.resource, new):
            raise _undecodable(target.resource, why, code)
        metadata = new["metadata"]
        if target.name and metadata.setdefault("name", target.name) != target.name:
            message = f"the name of the object ({metadata['name']}) does not match the name on the URL ({target.name})"
            raise status.bad_request(message)
        if target.namespace and metadata.setdefault("namespace", target.namespace) != target.namespace:
            raise status.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        return new

    # --- What goes into the store ------------------------------------------------------------------------------------

    def _find(self, target: Target) -> Object | None:
        return self._store.objects(target.resource).get(target.key)

    def _get(self, target: Target) -> Object:
        found = self._find(target)
        if found is None:
            raise status.not_found(target.resource, target.name)
        return found

    def _create(self, target: Target, new: Object, owners: Managers) -> Object:
        resource = target.resource
        if new["metadata"].get("resourceVersion"):
            raise status.StatusError(500, "", "resourceVersion should not be set on objects to be created")
        if resource.namespaced and ObjectKey("", target.namespace) not in self._store.objects(NAMESPACES):
            raise status.not_found(NAMESPACES, target.namespace)
        _validate(resource, new)
        if self._find(target) is not None:
            raise status.already_exists(resource, target.name)
        identity: Object = {"uid": str(uuid.uuid5(uuid.NAMESPACE_OID, str(self._store.revision + 1)))}
        if resource.counted:
            identity["generation"] = 1
        if resource.reports:
            new = _with_status_of({}, new)
        identity["creationTimestamp"] = _now()
        return self._store_with(target, None, new, identity, owners)

    def _update(self, target: Target, old: Object, new: Object, manager: str) -> Object:
        _check_version(target, old, new)
        uid = new["metadata"].get("uid") or old["metadata"]["uid"]
        if uid != old["metadata"]["uid"]:
            raise _other_uid(target, uid, old["metadata"]["uid"])
        new = complete(target.resource, tidy(new))
        actor = ownership.Manager("Update", manager)
        owners = ownership.after_update(old, _with_addresses_of(old, new), _owners(old), actor, _now())
        return self._replace(target, old, new, owners)

    def _replace(self, target: Target, old: Object, new: Object, owners: Managers) -> Object:
        _validate(target.resource, new)
        if target.resource.reports:
            new = _with_status_of(old, new)
        identity = _identity(old)
        if target.resource.counted:
            identity["generation"] += any(new.get(key) != old.get(key) for key in target.resource.fields)
        return self._store_with(target, old, new, identity, owners)

    def _store_with(
        self, target: Target, old: Object | None, new: Object, identity: Object, owners: Managers
    ) -> Object:
        """Store an object with what only the server says of it; not, if that is what is stored already."""
        resource = target.resource
        metadata: Object = {"name": target.name}
        if resource.namespaced:
            metadata["namespace"] = target.namespace
        managed = ownership.encode(owners, resource.api_version)
        metadata |= (
            {"uid": identity["uid"], "resourceVersion": ""}
            | identity
            | {key: value for key, value in new["metadata"].items() if key not in _SERVER_SAYS}
        )
        if managed:
            metadata["managedFields"] = managed
        new = {**new, "metadata": metadata}
        if resource == SERVICES:
            new = self._addresses.assign(new, old)
            new = {**new, "status": old["status"]} if old is not None else new  # it has an API of its own
        if resource == NAMESPACES:
            new |= {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
        if old is not None and _says_the_same(old, new):
            return old
        return self._store.put(resource, target.key, new)

    def _remove(self, resource: Resource, key: ObjectKey) -> Object:
        removed = self._store.remove(resource, key)
        if resource == SERVICES:
            self._addresses.release(removed["spec"].get("clusterIP", ""))
        return removed

    def _delete_namespace(self, target: Target, old: Object) -> Object:
        if target.name in _UNDELETABLE:
            raise status.forbidden(NAMESPACES, target.name, "this namespace may not be deleted")
        metadata = {**old["metadata"], "deletionTimestamp": _now()}
        leaving = self._store.put(NAMESPACES, target.key, {**old, "metadata": metadata, "status": _TERMINATING})
        for resource in RESOURCES:
            for key in sorted(self._store.objects(resource)):
                if resource.namespaced and key.namespace == target.name:
                    self._remove(resource, key)
        self._remove(NAMESPACES, target.key)
        return leaving


_SERVER_SAYS = frozenset(
    {"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"}
)
_TERMINATING = {"phase": "Terminating"}


def _owners(obj: Object | None) -> dict[ownership.Manager, ownership.Owned]:
    return ownership.decode(obj["metadata"].get("managedFields", ())) if obj else {}


def _with_addresses_of(old: Object, new: Object) -> Object:
    """Return ``new`` with the addresses that the server gave: a body that leaves them out does not remove them."""
    kept = {key: old["spec"][key] for key in ("clusterIP", "clusterIPs") if key in (old.get("spec") or {})}
    return {**new, "spec": kept | new["spec"]} if kept else new


def _with_status_of(old: Object, new: Object) -> Object:
    """Return ``new`` with the status as it was: it is a part of its own, which only its own writes change."""
    kept = {"status": old["status"]} if "status" in old else {}
    return {key: value for key, value in new.items() if key != "status"} | kept


def _identity(old: Object) -> Object:
    return {key: old["metadata"][key] for key in ("uid", "creationTimestamp", "generation") if key in old["metadata"]}


def _says_the_same(old: Object, new: Object) -> bool:
    """Whether nothing but times and versions differs. Such a write is not stored: the version stays."""
    return _timeless(old) == _timeless(new)


def _timeless(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in {"resourceVersion", "managedFields"}}
    owners = {manager: owned.paths for manager, owned in _owners(obj).items()}
    return {**obj, "metadata": metadata, "owners": owners}


def _check_version(target: Target, old: Object, new: Object) -> None:
    wanted = new["metadata"].get("resourceVersion")
    if wanted and wanted != old["metadata"]["resourceVersion"]:
        raise status.modified(target.resource, target.name)


def _check_identity(target: Target, old: Object | None, config: Object) -> None:
    """Refuse to apply to an object that is not the one that is meant."""
    uid = config["metadata"].get("uid")
    if old is None:
        if uid:
            why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise status.conflict(target.resource, target.name, why)
        return
    _check_version(target, old, config)
    if uid and uid != old["metadata"]["uid"]:
        cause = status.Cause(
            "FieldValueInvalid", f"Invalid value: {json.dumps(uid)}: field is immutable", "metadata.uid"
        )
        raise status.invalid(target.resource.kind, target.resource.group, target.name, [cause])


def _other_uid(target: Target, wanted: str, stored: str) -> status.StatusError:
    why = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {stored}"
    return status.conflict(target.resource, target.name, why)


def _validate(resource: Resource, obj: Object) -> None:
    if causes := problems(resource, obj):
        raise status.invalid(resource.kind, resource.group, obj["metadata"].get("name", ""), causes)


def _undecodable(resource: Resource, why: str, code: int) -> status.StatusError:
    if code == 500:
        return _untyped(why)
    if code == 422:
        cause = status.Cause("FieldValueInvalid", f"Invalid value: {why}", "patch")
        return status.StatusError(422, "Invalid", f' "" is invalid: patch: {cause.message}')
    message = f'{resource.kind} in version "{resource.api_version}" cannot be handled as a {resource.kind}: {why}'
    return status.bad_request(message)


def _untyped(why: str) -> status.StatusError:
    """Return the refusal of an applied object that does not fit the schema; 500 is what the real API says."""
    return status.StatusError(500, "", f"failed to create typed patch object: {why}")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
