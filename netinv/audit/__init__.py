"""A gate for builds: pass, investigate or fail, by a policy, on confidence bounds, with a record that can be filed."""

from netinv.audit.audit import audit
from netinv.audit.files import SCHEMA, save_audit, schema
from netinv.audit.policy import (
    AgreementPolicy,
    LeakPolicy,
    MembershipPolicy,
    Policy,
    ReconstructionPolicy,
    RobustnessPolicy,
    ShadowConfig,
    StrangersPolicy,
    load_policy,
)
from netinv.audit.record import STATUS, AuditRecord, Check, Number, Verdict, load_audit

__all__ = [
    "SCHEMA",
    "STATUS",
    "AgreementPolicy",
    "AuditRecord",
    "Check",
    "LeakPolicy",
    "MembershipPolicy",
    "Number",
    "Policy",
    "ReconstructionPolicy",
    "RobustnessPolicy",
    "ShadowConfig",
    "StrangersPolicy",
    "Verdict",
    "audit",
    "load_audit",
    "load_policy",
    "save_audit",
    "schema",
]
