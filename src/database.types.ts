export type Json = string | number | boolean | null | { [key: string]: Json | undefined } | Json[];

export type Database = {
  public: {
    Tables: {
      work_claims: {
        Row: {
          affinity: string | null;
          again: string | null;
          changed_at: string | null;
          changes: number | null;
          claimed_at: string | null;
          class_id: number;
          crashes: number;
          due_at: string;
          error: string | null;
          expires_at: string;
          external_id: string | null;
          failures: number;
          fence: number | null;
          finished_at: string | null;
          item_id: string;
          poll_at: string | null;
          position: number;
          priority: number;
          progress: number | null;
          rank: number;
          read_input: string | null;
          request_id: string | null;
          result: Json | null;
          stale: string | null;
          state: Json | null;
          status: string;
          waits_for: number;
          work_type: string;
          worker_id: string | null;
          workflow_id: number | null;
        };
        ComputedFields: never;
        Insert: {
          affinity?: string | null;
          again?: string | null;
          changed_at?: string | null;
          changes?: number | null;
          claimed_at?: string | null;
          class_id?: number;
          crashes?: number;
          due_at?: string;
          error?: string | null;
          expires_at?: string;
          external_id?: string | null;
          failures?: number;
          fence?: number | null;
          finished_at?: string | null;
          item_id: string;
          poll_at?: string | null;
          position: number;
          priority?: number;
          progress?: number | null;
          rank?: number;
          read_input?: string | null;
          request_id?: string | null;
          result?: Json | null;
          stale?: string | null;
          state?: Json | null;
          status?: string;
          waits_for?: number;
          work_type: string;
          worker_id?: string | null;
          workflow_id?: number | null;
        };
        Update: {
          affinity?: string | null;
          again?: string | null;
          changed_at?: string | null;
          changes?: number | null;
          claimed_at?: string | null;
          class_id?: number;
          crashes?: number;
          due_at?: string;
          error?: string | null;
          expires_at?: string;
          external_id?: string | null;
          failures?: number;
          fence?: number | null;
          finished_at?: string | null;
          item_id?: string;
          poll_at?: string | null;
          position?: number;
          priority?: number;
          progress?: number | null;
          rank?: number;
          read_input?: string | null;
          request_id?: string | null;
          result?: Json | null;
          stale?: string | null;
          state?: Json | null;
          status?: string;
          waits_for?: number;
          work_type?: string;
          worker_id?: string | null;
          workflow_id?: number | null;
        };
        Relationships: [
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_claim_list";
            referencedColumns: ["item_key"];
          },
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_item_list";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_items";
            referencedColumns: ["id"];
          },
        ];
      };
      work_classes: {
        Row: {
          clauses: NonNullable<Json>;
          created_at: string;
          digest: string;
          id: number;
          labels: NonNullable<Json>;
          made_by: unknown;
          path: unknown;
          requires: NonNullable<Json>;
          tag: string;
        };
        ComputedFields: never;
        Insert: {
          clauses: NonNullable<Json>;
          created_at?: string;
          digest: string;
          id?: never;
          labels?: NonNullable<Json>;
          made_by?: unknown;
          path: unknown;
          requires?: NonNullable<Json>;
          tag: string;
        };
        Update: {
          clauses?: NonNullable<Json>;
          created_at?: string;
          digest?: string;
          id?: never;
          labels?: NonNullable<Json>;
          made_by?: unknown;
          path?: unknown;
          requires?: NonNullable<Json>;
          tag?: string;
        };
        Relationships: [];
      };
      work_dependencies: {
        Row: {
          id: number;
          is_met: boolean;
          item_id: string;
          needs_item_id: string | null;
          needs_work_type: string | null;
          needs_workflow_id: number | null;
          work_type: string;
        };
        ComputedFields: never;
        Insert: {
          id?: never;
          is_met?: boolean;
          item_id: string;
          needs_item_id?: string | null;
          needs_work_type?: string | null;
          needs_workflow_id?: number | null;
          work_type: string;
        };
        Update: {
          id?: never;
          is_met?: boolean;
          item_id?: string;
          needs_item_id?: string | null;
          needs_work_type?: string | null;
          needs_workflow_id?: number | null;
          work_type?: string;
        };
        Relationships: [
          {
            foreignKeyName: "work_dependencies_item_id_work_type_fkey";
            columns: ["item_id", "work_type"];
            isOneToOne: false;
            referencedRelation: "work_claim_list";
            referencedColumns: ["item_id", "work_type"];
          },
          {
            foreignKeyName: "work_dependencies_item_id_work_type_fkey";
            columns: ["item_id", "work_type"];
            isOneToOne: false;
            referencedRelation: "work_claims";
            referencedColumns: ["item_id", "work_type"];
          },
          {
            foreignKeyName: "work_dependencies_item_id_work_type_fkey";
            columns: ["item_id", "work_type"];
            isOneToOne: false;
            referencedRelation: "work_failures";
            referencedColumns: ["item_id", "work_type"];
          },
          {
            foreignKeyName: "work_dependencies_item_id_work_type_fkey";
            columns: ["item_id", "work_type"];
            isOneToOne: false;
            referencedRelation: "work_held";
            referencedColumns: ["item_id", "work_type"];
          },
          {
            foreignKeyName: "work_dependencies_item_id_work_type_fkey";
            columns: ["item_id", "work_type"];
            isOneToOne: false;
            referencedRelation: "work_stale";
            referencedColumns: ["item_id", "work_type"];
          },
          {
            foreignKeyName: "work_dependencies_item_id_work_type_fkey";
            columns: ["item_id", "work_type"];
            isOneToOne: false;
            referencedRelation: "work_taken";
            referencedColumns: ["item_id", "work_type"];
          },
        ];
      };
      work_events: {
        Row: {
          actor: string | null;
          at: string;
          detail: string | null;
          event: string;
          fence: number | null;
          from_status: string | null;
          id: number;
          input: string | null;
          item_id: string;
          to_status: string | null;
          work_type: string;
          worker_id: string | null;
        };
        ComputedFields: never;
        Insert: {
          actor?: string | null;
          at?: string;
          detail?: string | null;
          event: string;
          fence?: number | null;
          from_status?: string | null;
          id?: never;
          input?: string | null;
          item_id: string;
          to_status?: string | null;
          work_type: string;
          worker_id?: string | null;
        };
        Update: {
          actor?: string | null;
          at?: string;
          detail?: string | null;
          event?: string;
          fence?: number | null;
          from_status?: string | null;
          id?: never;
          input?: string | null;
          item_id?: string;
          to_status?: string | null;
          work_type?: string;
          worker_id?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "work_events_item_id_work_type_fkey";
            columns: ["item_id", "work_type"];
            isOneToOne: false;
            referencedRelation: "work_claim_list";
            referencedColumns: ["item_id", "work_type"];
          },
          {
            foreignKeyName: "work_events_item_id_work_type_fkey";
            columns: ["item_id", "work_type"];
            isOneToOne: false;
            referencedRelation: "work_claims";
            referencedColumns: ["item_id", "work_type"];
          },
          {
            foreignKeyName: "work_events_item_id_work_type_fkey";
            columns: ["item_id", "work_type"];
            isOneToOne: false;
            referencedRelation: "work_failures";
            referencedColumns: ["item_id", "work_type"];
          },
          {
            foreignKeyName: "work_events_item_id_work_type_fkey";
            columns: ["item_id", "work_type"];
            isOneToOne: false;
            referencedRelation: "work_held";
            referencedColumns: ["item_id", "work_type"];
          },
          {
            foreignKeyName: "work_events_item_id_work_type_fkey";
            columns: ["item_id", "work_type"];
            isOneToOne: false;
            referencedRelation: "work_stale";
            referencedColumns: ["item_id", "work_type"];
          },
          {
            foreignKeyName: "work_events_item_id_work_type_fkey";
            columns: ["item_id", "work_type"];
            isOneToOne: false;
            referencedRelation: "work_taken";
            referencedColumns: ["item_id", "work_type"];
          },
        ];
      };
      work_items: {
        Row: {
          affinity: string | null;
          class_id: number;
          created_at: string;
          dedupe_key: string | null;
          fingerprint: string | null;
          gathers_id: number | null;
          id: string;
          max_failures: number | null;
          needs: Json | null;
          payload: NonNullable<Json>;
          pool: string;
          priority: number;
          run_after: string | null;
          seq: number;
          source_key: string | null;
          traceparent: string | null;
          workflow_id: number | null;
        };
        ComputedFields: never;
        Insert: {
          affinity?: string | null;
          class_id?: number;
          created_at?: string;
          dedupe_key?: string | null;
          fingerprint?: string | null;
          gathers_id?: number | null;
          id?: string;
          max_failures?: number | null;
          needs?: Json | null;
          payload?: NonNullable<Json>;
          pool: string;
          priority?: number;
          run_after?: string | null;
          seq?: number;
          source_key?: string | null;
          traceparent?: string | null;
          workflow_id?: number | null;
        };
        Update: {
          affinity?: string | null;
          class_id?: number;
          created_at?: string;
          dedupe_key?: string | null;
          fingerprint?: string | null;
          gathers_id?: number | null;
          id?: string;
          max_failures?: number | null;
          needs?: Json | null;
          payload?: NonNullable<Json>;
          pool?: string;
          priority?: number;
          run_after?: string | null;
          seq?: number;
          source_key?: string | null;
          traceparent?: string | null;
          workflow_id?: number | null;
        };
        Relationships: [];
      };
      work_locks: {
        Row: {
          claim_fence: number;
          fence: number;
          item_id: string;
          name: string;
          slot: number;
          taken_at: string;
          work_type: string;
        };
        ComputedFields: never;
        Insert: {
          claim_fence: number;
          fence?: number;
          item_id: string;
          name: string;
          slot: number;
          taken_at?: string;
          work_type: string;
        };
        Update: {
          claim_fence?: number;
          fence?: number;
          item_id?: string;
          name?: string;
          slot?: number;
          taken_at?: string;
          work_type?: string;
        };
        Relationships: [];
      };
      work_pools: {
        Row: {
          affinity_column: string | null;
          column_numbers: Json | null;
          created_at: string;
          is_mirrored: boolean;
          key_columns: string[] | null;
          key_is_uuid: boolean;
          labels_column: string | null;
          mirrored_through: Json | null;
          name: string;
          paused_types: string[] | null;
          payload_columns: string[] | null;
          priority_column: string | null;
          requires_column: string | null;
          run_after_column: string | null;
          source: unknown;
          stopped_at: string | null;
          workflow_column: string | null;
        };
        ComputedFields: never;
        Insert: {
          affinity_column?: string | null;
          column_numbers?: Json | null;
          created_at?: string;
          is_mirrored?: boolean;
          key_columns?: string[] | null;
          key_is_uuid?: boolean;
          labels_column?: string | null;
          mirrored_through?: Json | null;
          name: string;
          paused_types?: string[] | null;
          payload_columns?: string[] | null;
          priority_column?: string | null;
          requires_column?: string | null;
          run_after_column?: string | null;
          source?: unknown;
          stopped_at?: string | null;
          workflow_column?: string | null;
        };
        Update: {
          affinity_column?: string | null;
          column_numbers?: Json | null;
          created_at?: string;
          is_mirrored?: boolean;
          key_columns?: string[] | null;
          key_is_uuid?: boolean;
          labels_column?: string | null;
          mirrored_through?: Json | null;
          name?: string;
          paused_types?: string[] | null;
          payload_columns?: string[] | null;
          priority_column?: string | null;
          requires_column?: string | null;
          run_after_column?: string | null;
          source?: unknown;
          stopped_at?: string | null;
          workflow_column?: string | null;
        };
        Relationships: [];
      };
      work_types: {
        Row: {
          apply: string | null;
          backoff_limit_seconds: number;
          backoff_seconds: number;
          copy_of: string | null;
          created_at: string;
          depends_on: string[];
          enroll_until: number;
          enrolled_through: number;
          history: string;
          input_columns: string[] | null;
          into_column: string | null;
          is_plain: boolean;
          keep_events: number;
          keep_failed: string | null;
          keep_succeeded: string | null;
          lease_seconds: number;
          max_crashes: number;
          max_failures: number;
          min_worker_version: string | null;
          name: string;
          on_change: string | null;
          on_dead_end: string;
          on_failed_need: string;
          passed_over_seconds: number;
          paused: boolean;
          payload_schema: Json | null;
          pool: string | null;
          pruned_at: string | null;
          pruned_through: string | null;
          redone_through: string | null;
          result_schema: Json | null;
          several: number;
          stopped: string | null;
          try_seconds: number | null;
          version: number;
          version_at: string | null;
        };
        ComputedFields: never;
        Insert: {
          apply?: string | null;
          backoff_limit_seconds?: number;
          backoff_seconds?: number;
          copy_of?: string | null;
          created_at?: string;
          depends_on?: string[];
          enroll_until?: number;
          enrolled_through?: number;
          history?: string;
          input_columns?: string[] | null;
          into_column?: string | null;
          is_plain?: boolean;
          keep_events?: number;
          keep_failed?: string | null;
          keep_succeeded?: string | null;
          lease_seconds?: number;
          max_crashes?: number;
          max_failures?: number;
          min_worker_version?: string | null;
          name: string;
          on_change?: string | null;
          on_dead_end?: string;
          on_failed_need?: string;
          passed_over_seconds?: number;
          paused?: boolean;
          payload_schema?: Json | null;
          pool?: string | null;
          pruned_at?: string | null;
          pruned_through?: string | null;
          redone_through?: string | null;
          result_schema?: Json | null;
          several?: number;
          stopped?: string | null;
          try_seconds?: number | null;
          version?: number;
          version_at?: string | null;
        };
        Update: {
          apply?: string | null;
          backoff_limit_seconds?: number;
          backoff_seconds?: number;
          copy_of?: string | null;
          created_at?: string;
          depends_on?: string[];
          enroll_until?: number;
          enrolled_through?: number;
          history?: string;
          input_columns?: string[] | null;
          into_column?: string | null;
          is_plain?: boolean;
          keep_events?: number;
          keep_failed?: string | null;
          keep_succeeded?: string | null;
          lease_seconds?: number;
          max_crashes?: number;
          max_failures?: number;
          min_worker_version?: string | null;
          name?: string;
          on_change?: string | null;
          on_dead_end?: string;
          on_failed_need?: string;
          passed_over_seconds?: number;
          paused?: boolean;
          payload_schema?: Json | null;
          pool?: string | null;
          pruned_at?: string | null;
          pruned_through?: string | null;
          redone_through?: string | null;
          result_schema?: Json | null;
          several?: number;
          stopped?: string | null;
          try_seconds?: number | null;
          version?: number;
          version_at?: string | null;
        };
        Relationships: [];
      };
      work_workers: {
        Row: {
          accepts: NonNullable<Json>;
          capabilities: NonNullable<Json>;
          exclusive: string[];
          id: string;
          instance: string;
          last_seen_at: string;
          profile_id: number;
          registered_at: string;
          retired_at: string | null;
          version: string | null;
          work_types: string[] | null;
          yield_seconds: number | null;
        };
        ComputedFields: never;
        Insert: {
          accepts?: NonNullable<Json>;
          capabilities?: NonNullable<Json>;
          exclusive?: string[];
          id: string;
          instance: string;
          last_seen_at?: string;
          profile_id?: number;
          registered_at?: string;
          retired_at?: string | null;
          version?: string | null;
          work_types?: string[] | null;
          yield_seconds?: number | null;
        };
        Update: {
          accepts?: NonNullable<Json>;
          capabilities?: NonNullable<Json>;
          exclusive?: string[];
          id?: string;
          instance?: string;
          last_seen_at?: string;
          profile_id?: number;
          registered_at?: string;
          retired_at?: string | null;
          version?: string | null;
          work_types?: string[] | null;
          yield_seconds?: number | null;
        };
        Relationships: [];
      };
      work_workflows: {
        Row: {
          created_at: string;
          id: number;
          is_gathered: boolean;
          name: string;
          priority: number;
          rank: number;
        };
        ComputedFields: never;
        Insert: {
          created_at?: string;
          id?: never;
          is_gathered?: boolean;
          name: string;
          priority?: number;
          rank?: number;
        };
        Update: {
          created_at?: string;
          id?: never;
          is_gathered?: boolean;
          name?: string;
          priority?: number;
          rank?: number;
        };
        Relationships: [];
      };
    };
    Views: {
      work_capability_match: {
        Row: {
          class_id: number | null;
          example_worker: string | null;
          failing: string[] | null;
          labels: NonNullable<Json>;
          matches: boolean | null;
          profile_id: number;
          requires: NonNullable<Json>;
          work_type: string | null;
          workers: number | null;
          yields: boolean | null;
        };
        ComputedFields: never;
        Insert: {
          class_id?: number | null;
          example_worker?: string | null;
          failing?: string[] | null;
          labels?: Json | null;
          matches?: boolean | null;
          profile_id?: number | null;
          requires?: Json | null;
          work_type?: string | null;
          workers?: number | null;
          yields?: boolean | null;
        };
        Update: {
          class_id?: number | null;
          example_worker?: string | null;
          failing?: string[] | null;
          labels?: Json | null;
          matches?: boolean | null;
          profile_id?: number | null;
          requires?: Json | null;
          work_type?: string | null;
          workers?: number | null;
          yields?: boolean | null;
        };
        Relationships: [];
      };
      work_claim_list: {
        Row: {
          affinity: string | null;
          claimed_at: string | null;
          crashes: number;
          due_at: string;
          error: string | null;
          expires_at: string;
          external_id: string | null;
          failures: number;
          fence: number | null;
          finished_at: string | null;
          item_id: string;
          item_key: string | null;
          labels: Json | null;
          lease_left: string | null;
          parked: boolean | null;
          pool: string | null;
          position: number;
          priority: number;
          progress: number | null;
          rank: number;
          request_id: string | null;
          requires: Json | null;
          result: Json | null;
          source_key: string | null;
          stale: string | null;
          state: Json | null;
          status: string;
          waits_for: number;
          work_type: string;
          worker_id: string | null;
          workflow: string | null;
        };
        ComputedFields: never;
        Insert: {
          affinity?: string | null;
          claimed_at?: string | null;
          crashes?: number | null;
          due_at?: string | null;
          error?: string | null;
          expires_at?: string | null;
          external_id?: string | null;
          failures?: number | null;
          fence?: number | null;
          finished_at?: string | null;
          item_id?: string | null;
          item_key?: string | null;
          labels?: Json | null;
          lease_left?: string | null;
          parked?: boolean | null;
          pool?: string | null;
          position?: number | null;
          priority?: number | null;
          progress?: number | null;
          rank?: number | null;
          request_id?: string | null;
          requires?: Json | null;
          result?: Json | null;
          source_key?: string | null;
          stale?: string | null;
          state?: Json | null;
          status?: string | null;
          waits_for?: number | null;
          work_type?: string | null;
          worker_id?: string | null;
          workflow?: string | null;
        };
        Update: {
          affinity?: string | null;
          claimed_at?: string | null;
          crashes?: number | null;
          due_at?: string | null;
          error?: string | null;
          expires_at?: string | null;
          external_id?: string | null;
          failures?: number | null;
          fence?: number | null;
          finished_at?: string | null;
          item_id?: string | null;
          item_key?: string | null;
          labels?: Json | null;
          lease_left?: string | null;
          parked?: boolean | null;
          pool?: string | null;
          position?: number | null;
          priority?: number | null;
          progress?: number | null;
          rank?: number | null;
          request_id?: string | null;
          requires?: Json | null;
          result?: Json | null;
          source_key?: string | null;
          stale?: string | null;
          state?: Json | null;
          status?: string | null;
          waits_for?: number | null;
          work_type?: string | null;
          worker_id?: string | null;
          workflow?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_claim_list";
            referencedColumns: ["item_key"];
          },
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_item_list";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_items";
            referencedColumns: ["id"];
          },
        ];
      };
      work_failures: {
        Row: {
          crashes: number;
          error: string | null;
          failures: number;
          finished_at: string | null;
          item_id: string;
          pool: string;
          source_key: string | null;
          work_type: string;
          worker_id: string | null;
        };
        ComputedFields: never;
        Insert: {
          crashes?: number | null;
          error?: string | null;
          failures?: number | null;
          finished_at?: string | null;
          item_id?: string | null;
          pool?: string | null;
          source_key?: string | null;
          work_type?: string | null;
          worker_id?: string | null;
        };
        Update: {
          crashes?: number | null;
          error?: string | null;
          failures?: number | null;
          finished_at?: string | null;
          item_id?: string | null;
          pool?: string | null;
          source_key?: string | null;
          work_type?: string | null;
          worker_id?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_claim_list";
            referencedColumns: ["item_key"];
          },
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_item_list";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_items";
            referencedColumns: ["id"];
          },
        ];
      };
      work_held: {
        Row: {
          claimed_at: string | null;
          fence: number | null;
          held_for: string | null;
          item_id: string;
          last_seen_at: string | null;
          lease_left: string | null;
          parked_as: string | null;
          progress: number | null;
          work_type: string;
          worker_id: string | null;
        };
        ComputedFields: never;
        Insert: {
          claimed_at?: string | null;
          fence?: number | null;
          held_for?: string | null;
          item_id?: string | null;
          last_seen_at?: string | null;
          lease_left?: string | null;
          parked_as?: string | null;
          progress?: number | null;
          work_type?: string | null;
          worker_id?: string | null;
        };
        Update: {
          claimed_at?: string | null;
          fence?: number | null;
          held_for?: string | null;
          item_id?: string | null;
          last_seen_at?: string | null;
          lease_left?: string | null;
          parked_as?: string | null;
          progress?: number | null;
          work_type?: string | null;
          worker_id?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_claim_list";
            referencedColumns: ["item_key"];
          },
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_item_list";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_items";
            referencedColumns: ["id"];
          },
        ];
      };
      work_history: {
        Row: {
          failed: number | null;
          failed_for_good: number | null;
          lost: number | null;
          ran: Json | null;
          ran_seconds: number | null;
          span: string;
          starts_at: string;
          succeeded: number | null;
          waited: Json | null;
          waited_seconds: number | null;
          work_type: string;
        };
        ComputedFields: never;
        Insert: {
          failed?: number | null;
          failed_for_good?: number | null;
          lost?: number | null;
          ran?: Json | null;
          ran_seconds?: number | null;
          span?: string | null;
          starts_at?: string | null;
          succeeded?: number | null;
          waited?: Json | null;
          waited_seconds?: number | null;
          work_type?: string | null;
        };
        Update: {
          failed?: number | null;
          failed_for_good?: number | null;
          lost?: number | null;
          ran?: Json | null;
          ran_seconds?: number | null;
          span?: string | null;
          starts_at?: string | null;
          succeeded?: number | null;
          waited?: Json | null;
          waited_seconds?: number | null;
          work_type?: string | null;
        };
        Relationships: [];
      };
      work_item_list: {
        Row: {
          affinity: string | null;
          created_at: string;
          dedupe_key: string | null;
          id: string;
          labels: Json | null;
          payload: NonNullable<Json>;
          pool: string;
          priority: number;
          requires: Json | null;
          run_after: string | null;
          seq: number;
          source_key: string | null;
          workflow: string | null;
        };
        ComputedFields: never;
        Insert: {
          affinity?: string | null;
          created_at?: string | null;
          dedupe_key?: string | null;
          id?: string | null;
          labels?: Json | null;
          payload?: Json | null;
          pool?: string | null;
          priority?: number | null;
          requires?: Json | null;
          run_after?: string | null;
          seq?: number | null;
          source_key?: string | null;
          workflow?: string | null;
        };
        Update: {
          affinity?: string | null;
          created_at?: string | null;
          dedupe_key?: string | null;
          id?: string | null;
          labels?: Json | null;
          payload?: Json | null;
          pool?: string | null;
          priority?: number | null;
          requires?: Json | null;
          run_after?: string | null;
          seq?: number | null;
          source_key?: string | null;
          workflow?: string | null;
        };
        Relationships: [];
      };
      work_lock_list: {
        Row: {
          fence: number;
          item_id: string;
          lease_left: string | null;
          name: string;
          slot: number;
          taken_at: string;
          work_type: string;
          worker_id: string | null;
        };
        ComputedFields: never;
        Insert: {
          fence?: number | null;
          item_id?: string | null;
          lease_left?: string | null;
          name?: string | null;
          slot?: number | null;
          taken_at?: string | null;
          work_type?: string | null;
          worker_id?: string | null;
        };
        Update: {
          fence?: number | null;
          item_id?: string | null;
          lease_left?: string | null;
          name?: string | null;
          slot?: number | null;
          taken_at?: string | null;
          work_type?: string | null;
          worker_id?: string | null;
        };
        Relationships: [];
      };
      work_overview: {
        Row: {
          blocked: number | null;
          cancelled: number | null;
          claimed: number | null;
          failed: number | null;
          finished_last_minute: number | null;
          is_capped: boolean | null;
          late: number | null;
          oldest_wait: string | null;
          open: number | null;
          parked: number | null;
          paused: boolean | null;
          pool: string | null;
          ready: number | null;
          succeeded: number | null;
          time_left: string | null;
          waiting: number | null;
          work_type: string | null;
        };
        ComputedFields: never;
        Insert: {
          blocked?: number | null;
          cancelled?: number | null;
          claimed?: number | null;
          failed?: number | null;
          finished_last_minute?: number | null;
          is_capped?: boolean | null;
          late?: number | null;
          oldest_wait?: string | null;
          open?: number | null;
          parked?: number | null;
          paused?: boolean | null;
          pool?: string | null;
          ready?: number | null;
          succeeded?: number | null;
          time_left?: string | null;
          waiting?: number | null;
          work_type?: string | null;
        };
        Update: {
          blocked?: number | null;
          cancelled?: number | null;
          claimed?: number | null;
          failed?: number | null;
          finished_last_minute?: number | null;
          is_capped?: boolean | null;
          late?: number | null;
          oldest_wait?: string | null;
          open?: number | null;
          parked?: number | null;
          paused?: boolean | null;
          pool?: string | null;
          ready?: number | null;
          succeeded?: number | null;
          time_left?: string | null;
          waiting?: number | null;
          work_type?: string | null;
        };
        Relationships: [];
      };
      work_stale: {
        Row: {
          item_id: string;
          pool: string;
          reason: string | null;
          result: Json | null;
          source_key: string | null;
          status: string;
          waits_for: number;
          work_type: string;
        };
        ComputedFields: never;
        Insert: {
          item_id?: string | null;
          pool?: string | null;
          reason?: string | null;
          result?: Json | null;
          source_key?: string | null;
          status?: string | null;
          waits_for?: number | null;
          work_type?: string | null;
        };
        Update: {
          item_id?: string | null;
          pool?: string | null;
          reason?: string | null;
          result?: Json | null;
          source_key?: string | null;
          status?: string | null;
          waits_for?: number | null;
          work_type?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_claim_list";
            referencedColumns: ["item_key"];
          },
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_item_list";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_items";
            referencedColumns: ["id"];
          },
        ];
      };
      work_stuck: {
        Row: {
          item_id: string | null;
          reason: string | null;
          since: string | null;
          work_type: string | null;
        };
        ComputedFields: never;
        Insert: {
          item_id?: string | null;
          reason?: string | null;
          since?: string | null;
          work_type?: string | null;
        };
        Update: {
          item_id?: string | null;
          reason?: string | null;
          since?: string | null;
          work_type?: string | null;
        };
        Relationships: [];
      };
      work_taken: {
        Row: {
          item_id: string;
          work_type: string;
        };
        ComputedFields: never;
        Insert: {
          item_id?: string | null;
          work_type?: string | null;
        };
        Update: {
          item_id?: string | null;
          work_type?: string | null;
        };
        Relationships: [
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_claim_list";
            referencedColumns: ["item_key"];
          },
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_item_list";
            referencedColumns: ["id"];
          },
          {
            foreignKeyName: "work_claims_item_id_fkey";
            columns: ["item_id"];
            isOneToOne: false;
            referencedRelation: "work_items";
            referencedColumns: ["id"];
          },
        ];
      };
      work_worker_list: {
        Row: {
          accepts: NonNullable<Json>;
          alive: boolean | null;
          capabilities: NonNullable<Json>;
          exclusive: string[];
          free: boolean | null;
          holds: number | null;
          id: string;
          instance: string;
          last_seen_at: string;
          pools: string[] | null;
          registered_at: string;
          retired_at: string | null;
          version: string | null;
          work_types: string[] | null;
          yield_seconds: number | null;
        };
        ComputedFields: never;
        Insert: {
          accepts?: Json | null;
          alive?: boolean | null;
          capabilities?: Json | null;
          exclusive?: string[] | null;
          free?: boolean | null;
          holds?: number | null;
          id?: string | null;
          instance?: string | null;
          last_seen_at?: string | null;
          pools?: string[] | null;
          registered_at?: string | null;
          retired_at?: string | null;
          version?: string | null;
          work_types?: string[] | null;
          yield_seconds?: number | null;
        };
        Update: {
          accepts?: Json | null;
          alive?: boolean | null;
          capabilities?: Json | null;
          exclusive?: string[] | null;
          free?: boolean | null;
          holds?: number | null;
          id?: string | null;
          instance?: string | null;
          last_seen_at?: string | null;
          pools?: string[] | null;
          registered_at?: string | null;
          retired_at?: string | null;
          version?: string | null;
          work_types?: string[] | null;
          yield_seconds?: number | null;
        };
        Relationships: [];
      };
    };
    Functions: {
      add_needs: { Args: { item_id: string; needs: Json }; Returns: number };
      attach_pool: {
        Args: {
          affinity_column?: string;
          labels_column?: string;
          payload_columns?: string[];
          pool?: string;
          priority_column?: string;
          requires_column?: string;
          run_after_column?: string;
          source: unknown;
          workflow_column?: string;
        };
        Returns: Json;
      };
      cancel_items: { Args: { item_ids?: string[]; max_items?: number; work_type: string }; Returns: number };
      claim_items: {
        Args: { item_ids: string[]; request_id?: string; ttl_seconds?: number; work_type: string; worker_id: string };
        Returns: Json;
      };
      claim_next: {
        Args: {
          max_items?: number;
          request_id?: string;
          ttl_seconds?: number;
          warm?: string[];
          work_types: string[];
          worker_id: string;
        };
        Returns: Json;
      };
      define_pool: { Args: { pool: string }; Returns: Json };
      define_work_type: {
        Args: {
          apply?: string;
          backoff_limit_seconds?: number;
          backoff_seconds?: number;
          depends_on?: string[];
          history?: string;
          input_columns?: string[];
          into_column?: string;
          keep_events?: number;
          keep_failed?: string;
          keep_succeeded?: string;
          lease_seconds?: number;
          max_crashes?: number;
          max_failures?: number;
          min_worker_version?: string;
          on_change?: string;
          on_dead_end?: string;
          on_failed_need?: string;
          passed_over_seconds?: number;
          paused?: boolean;
          payload_schema?: Json;
          pool?: string;
          result_schema?: Json;
          several?: number;
          try_seconds?: number;
          version?: number;
          work_type: string;
        };
        Returns: Json;
      };
      define_workflow: { Args: { priority?: number; workflow: string }; Returns: Json };
      describe_work_types: { Args: { work_types: string[] }; Returns: Json };
      detach_pool: { Args: { pool: string }; Returns: boolean };
      drop_lock: {
        Args: { fence: number; item_id: string; name: string; work_type: string; worker_id: string };
        Returns: boolean;
      };
      enqueue_items: { Args: { items: Json; request_id?: string }; Returns: Json };
      enroll_pool: { Args: { max_items?: number; pool: string }; Returns: Json };
      explain_item: { Args: { item_id: string; work_type?: string }; Returns: Json };
      extend_claims: { Args: { held: Json; ttl_seconds?: number; worker_id: string }; Returns: Json };
      finish_and_claim: {
        Args: {
          max_items?: number;
          outcomes: Json;
          request_id?: string;
          ttl_seconds?: number;
          warm?: string[];
          work_types: string[];
          worker_id: string;
        };
        Returns: Json;
      };
      invalidate_items: { Args: { item_ids: string[]; reason?: string; work_type: string }; Returns: number };
      prune_classes: { Args: { max_classes?: number }; Returns: number };
      prune_finished: { Args: { at_most?: number; older_than: string; work_type: string }; Returns: Json };
      reap_expired_claims: { Args: { max_items?: number }; Returns: number };
      refused_classes: { Args: { class_ids: number[]; worker_id: string }; Returns: Json };
      register_worker: {
        Args: {
          accepts?: Json;
          capabilities?: Json;
          exclusive?: string[];
          instance: string;
          version?: string;
          work_types?: string[];
          worker_id: string;
          yield_seconds?: number;
        };
        Returns: Json;
      };
      release_claims_for_worker: { Args: { worker_id: string }; Returns: number };
      release_item: {
        Args: {
          error?: string;
          fence: number;
          item_id: string;
          outcome: string;
          result?: Json;
          work_type: string;
          worker_id: string;
        };
        Returns: boolean;
      };
      release_items: { Args: { outcomes: Json; worker_id: string }; Returns: Json };
      release_parked: {
        Args: {
          error?: string;
          external_id: string;
          fence?: number;
          final?: boolean;
          outcome: string;
          result?: Json;
          retry_after_seconds?: number;
          work_types?: string[];
        };
        Returns: Json;
      };
      reread_claim: { Args: { fence: number; item_id: string; work_type: string; worker_id: string }; Returns: Json };
      retire_worker: { Args: { worker_id: string }; Returns: boolean };
      retry_items: { Args: { item_ids?: string[]; max_items?: number; work_type: string }; Returns: number };
      set_priority: { Args: { item_ids: string[]; priority: number }; Returns: number };
      take_lock: {
        Args: { fence: number; item_id: string; name: string; slots: number; work_type: string; worker_id: string };
        Returns: Json;
      };
      take_parked: {
        Args: { every_seconds?: number; max_items?: number; work_types: string[]; worker_id: string };
        Returns: Json;
      };
      work_depth: { Args: { at_most?: number; capabilities?: Json; work_type: string }; Returns: Json };
      work_pulse: { Args: { since_event?: number }; Returns: Json };
      work_remaining: { Args: { work_types: string[] }; Returns: Json };
      would_match: { Args: { labels?: Json; requires?: Json; work_type?: string }; Returns: Json };
    };
    Enums: {
      [_ in never]: never;
    };
    CompositeTypes: {
      [_ in never]: never;
    };
  };
};

type DatabaseWithoutInternals = Omit<Database, "__InternalSupabase">;

type DefaultSchema = DatabaseWithoutInternals[Extract<keyof Database, "public">];

export type Tables<
  DefaultSchemaTableNameOrOptions extends
    | keyof (DefaultSchema["Tables"] & DefaultSchema["Views"])
    | { schema: keyof DatabaseWithoutInternals },
  TableName extends DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals;
  }
    ? keyof (DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"] &
        DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Views"])
    : never = never,
> = DefaultSchemaTableNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? (DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"] &
      DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Views"])[TableName] extends {
      Row: infer R;
    }
    ? R
    : never
  : DefaultSchemaTableNameOrOptions extends keyof (DefaultSchema["Tables"] & DefaultSchema["Views"])
    ? (DefaultSchema["Tables"] & DefaultSchema["Views"])[DefaultSchemaTableNameOrOptions] extends {
        Row: infer R;
      }
      ? R
      : never
    : never;

export type TablesInsert<
  DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"] | { schema: keyof DatabaseWithoutInternals },
  TableName extends DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals;
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"]
    : never = never,
> = DefaultSchemaTableNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"][TableName] extends {
      Insert: infer I;
    }
    ? I
    : never
  : DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"]
    ? DefaultSchema["Tables"][DefaultSchemaTableNameOrOptions] extends {
        Insert: infer I;
      }
      ? I
      : never
    : never;

export type TablesUpdate<
  DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"] | { schema: keyof DatabaseWithoutInternals },
  TableName extends DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals;
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"]
    : never = never,
> = DefaultSchemaTableNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"][TableName] extends {
      Update: infer U;
    }
    ? U
    : never
  : DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"]
    ? DefaultSchema["Tables"][DefaultSchemaTableNameOrOptions] extends {
        Update: infer U;
      }
      ? U
      : never
    : never;

export type Enums<
  DefaultSchemaEnumNameOrOptions extends keyof DefaultSchema["Enums"] | { schema: keyof DatabaseWithoutInternals },
  EnumName extends DefaultSchemaEnumNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals;
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaEnumNameOrOptions["schema"]]["Enums"]
    : never = never,
> = DefaultSchemaEnumNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[DefaultSchemaEnumNameOrOptions["schema"]]["Enums"][EnumName]
  : DefaultSchemaEnumNameOrOptions extends keyof DefaultSchema["Enums"]
    ? DefaultSchema["Enums"][DefaultSchemaEnumNameOrOptions]
    : never;

export type CompositeTypes<
  PublicCompositeTypeNameOrOptions extends
    | keyof DefaultSchema["CompositeTypes"]
    | { schema: keyof DatabaseWithoutInternals },
  CompositeTypeName extends PublicCompositeTypeNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals;
  }
    ? keyof DatabaseWithoutInternals[PublicCompositeTypeNameOrOptions["schema"]]["CompositeTypes"]
    : never = never,
> = PublicCompositeTypeNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[PublicCompositeTypeNameOrOptions["schema"]]["CompositeTypes"][CompositeTypeName]
  : PublicCompositeTypeNameOrOptions extends keyof DefaultSchema["CompositeTypes"]
    ? DefaultSchema["CompositeTypes"][PublicCompositeTypeNameOrOptions]
    : never;

export const Constants = {
  public: {
    Enums: {},
  },
} as const;
